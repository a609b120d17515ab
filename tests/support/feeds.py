"""A room's feed, and a worker that remembers what it was told."""

import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed, TrackIndex
from roomtape_service.recording.front.recording import FeedRecording, RecordingFacts
from roomtape_service.recording.front.track import FeedTrack, TrackFacts

__all__ = ["NOW", "FeedWorker", "feed", "index", "recording", "track"]

NOW = 1_700_000_000_000_000_000


class FeedWorker:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[protocol.Message] = []
        self._decoder = protocol.MessageDecoder()

    def send(self, message: bytes) -> None:
        """See WorkerChannel."""
        self.messages += self._decoder.feed(message)

    def take(self) -> list[protocol.Message]:
        """What it was told since the last time."""
        messages, self.messages = self.messages, []
        return messages

    def frames(self) -> list[bytes]:
        """Of that, the batches of frames."""
        return [each.batch for each in self.take() if isinstance(each, protocol.Frames)]


@pytest.fixture
def index() -> TrackIndex:
    """Where the feed enters its tracks."""
    return {}


@pytest.fixture
def feed(index: TrackIndex) -> RoomFeed:
    """The feed of a room whose time began at `NOW`."""
    feed = RoomFeed(FeedFacts("room", protocol.RoomClock.ARRIVAL), index)
    feed.begin(NOW)
    return feed


def recording(
    name: str = "r1", kind: protocol.RecordingKind = protocol.RecordingKind.SINGLE
) -> FeedRecording:
    """A recording to WAV."""
    return FeedRecording(
        RecordingFacts(
            recording_id=name,
            task_id="t1",
            kind=kind,
            containers=(protocol.Container.WAV,),
            segment_ns=7200 * 10**9,
            segment_bytes=1 << 31,
            bitrate=64000,
            mute_ends_segment=False,
            break_wait_ns=30 * 10**9,
            from_ns=NOW,
        )
    )


def track(feed: RoomFeed, name: str = "mic") -> FeedTrack:
    """Anna's track of this name comes."""
    return feed.add_track(TrackFacts(f"s1/{name}", "anna", protocol.TrackCodec.OPUS, 48000, 1))
