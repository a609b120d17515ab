"""A publishing session over all of its streams: its tracks, and what is due to be sent. It does no input or output."""

from collections.abc import Sequence
from dataclasses import dataclass

from roomtape.client.clock import NANOSECONDS, Clock
from roomtape.client.outgoing import OutgoingTrack
from roomtape.v1 import ingest_pb2, room_pb2

__all__ = ["PublishSession", "PublisherSettings", "PublisherStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """How a publisher sends. The defaults are what the service is made for."""

    batch_seconds: float = 0.1
    """How long a frame waits for others to share a message with."""

    batch_frames: int = 100
    """So many unsent frames of a track don't wait."""

    batch_bytes: int = 256 * 1024
    """So many unsent bytes of a track don't wait."""

    heartbeat_seconds: float = 0.25
    """How often the clock is sent when there are no frames; the service wants it every 0.5 s."""

    told_silence: bool = False
    """Whether a live track is silent only up to where frames or `advance` say so. Otherwise time that passed without
    frames was silence, which is wrong for a source that may be late itself: a file that is read while it plays."""

    window_frames: int = 16_384
    """With so many frames that are not acknowledged, `publish` waits."""

    window_bytes: int = 4 * 1024 * 1024
    """With so many bytes that are not acknowledged, `publish` waits. The service holds as much for a track."""

    open_seconds: float = 20.0
    """How long the first opening may take, all tries together."""

    outage_seconds: float | None = 120.0
    """How long a session may be without a stream before it is given up; None: for ever."""

    reply_seconds: float = 10.0
    """How long a server may take to answer `open`, before the stream counts as broken."""


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher has done so far."""

    published_frames: int
    """Frames that were given to it."""

    unsent_frames: int
    """Frames of them that wait to be sent."""

    resent_frames: int
    """Frames that were sent again, each time counted."""

    unacknowledged_frames: int
    """Frames that the server has not called safe."""

    unacknowledged_bytes: int
    """Bytes of their payloads."""

    rejected_frames: int
    """Frames that the server did not take for their own fault."""

    streams: int
    """Streams that the server opened; all but the first are resumptions."""

    redirects: int
    """How often the server sent us elsewhere."""


class PublishSession:
    """The state of a publisher. Times are nanoseconds."""

    def __init__(
        self, opening: ingest_pb2.PublishOpen, clock: Clock, settings: PublisherSettings, start_ns: int | None
    ) -> None:
        self.tracks = {offer.track_id: OutgoingTrack(offer) for offer in opening.tracks}
        self.room_clock: room_pb2.RoomClock.ValueType = room_pb2.ROOM_CLOCK_UNSPECIFIED
        self.closing = False
        self.rejected_frames = 0
        self.streams = 0
        self.redirects = 0
        self._opening = opening
        self._clock = clock
        self._settings = settings
        self._given_start_ns = start_ns
        self.start_ns = 0
        self._close_ns: int | None = None
        self._close_sent = False
        self._queued_ns = dict.fromkeys(self.tracks, 0)
        self._heard_ns = dict.fromkeys(self.tracks, 0)

    @property
    def is_media(self) -> bool:
        """Whether capture times drive the room."""
        return self.room_clock == room_pb2.ROOM_CLOCK_MEDIA

    @property
    def unacknowledged_frames(self) -> int:
        """Frames that the server has not called safe."""
        return sum(track.unacknowledged_frames for track in self.tracks.values())

    @property
    def is_full(self) -> bool:
        """Whether the window has no room for another frame."""
        size = sum(track.unacknowledged_bytes for track in self.tracks.values())
        return (
            size >= self._settings.window_bytes or self.unacknowledged_frames >= self._settings.window_frames
        )

    def statistics(self) -> PublisherStatistics:
        """The counts so far."""
        tracks = self.tracks.values()
        return PublisherStatistics(
            published_frames=sum(track.newest_sequence for track in tracks),
            unsent_frames=sum(track.unsent_frames for track in tracks),
            resent_frames=sum(track.resent_frames for track in tracks),
            unacknowledged_frames=self.unacknowledged_frames,
            unacknowledged_bytes=sum(track.unacknowledged_bytes for track in tracks),
            rejected_frames=self.rejected_frames,
            streams=self.streams,
            redirects=self.redirects,
        )

    def open_request(self) -> ingest_pb2.PublishRequest:
        """The first message of a stream."""
        request = ingest_pb2.PublishRequest(open=self._opening)
        if self.streams:
            sent_ns = min(self._sent_ns(track) for track in self.tracks.values())
        else:
            given_ns = self._given_start_ns
            sent_ns = self.start_ns = self._clock.now_ns() if given_ns is None else given_ns
        request.open.sent_time.FromNanoseconds(sent_ns)
        return request

    def opened(self, opened: ingest_pb2.PublishOpened) -> list[tuple[str, int]]:
        """The server took the session: everything that it has not goes again; returns as `acknowledge` does."""
        self.room_clock = opened.clock
        self.streams += 1
        self._close_sent = False
        now_ns = self._clock.monotonic_ns()
        for track_id, track in self.tracks.items():
            if self.is_media:
                track.start(self.start_ns)
            track.complete_until_ns = max(track.complete_until_ns, self.start_ns)
            track.rewind(opened.resumed)
            self._heard_ns[track_id] = now_ns
            self._queued_ns[track_id] = now_ns - round(self._settings.batch_seconds * NANOSECONDS)
        return self.acknowledge(opened.acknowledgements)

    def acknowledge(self, acknowledgements: Sequence[ingest_pb2.Acknowledgement]) -> list[tuple[str, int]]:
        """Lets go of what is safe; (track, sequence) of all that is news."""
        return [
            (each.track_id, each.sequence)
            for each in acknowledgements
            if each.track_id in self.tracks and self.tracks[each.track_id].acknowledge(each.sequence)
        ]

    def add(self, track_id: str, payload: bytes, capture_ns: int | None, media_ns: int | None) -> int:
        """Appends a frame to a track; its sequence."""
        track = self.tracks[track_id]
        if not track.unsent_frames:
            self._queued_ns[track_id] = self._clock.monotonic_ns()
        return track.add(payload, None if self.is_media else self._clock.now_ns(), capture_ns, media_ns)

    def close(self, at_ns: int | None) -> None:
        """Everything was published; `at_ns` is where files end."""
        self.closing, self._close_ns = True, at_ns

    def advance(self, track_id: str, until_ns: int) -> None:
        """All of the track that was captured before `until_ns` is published."""
        track = self.tracks[track_id]
        track.complete_until_ns = max(track.complete_until_ns, until_ns)

    def due_seconds(self) -> float | None:
        """How long until `take` has something; None after the last message."""
        if self.closing:
            return None if self._close_sent else 0.0
        due_ns = min(self._due_ns(track_id) for track_id in self.tracks)
        return max(0.0, (due_ns - self._clock.monotonic_ns()) / NANOSECONDS)

    def take(self) -> ingest_pb2.PublishRequest | None:
        """The next message that is due; None when nothing is."""
        if self._close_sent:
            return None
        now_ns = self._clock.monotonic_ns()
        for track_id, track in self.tracks.items():
            if self._due_ns(track_id) > now_ns:
                continue
            request = track.take()
            if request is None:
                request = ingest_pb2.PublishRequest(frames=ingest_pb2.FrameBatch(track_id=track_id))
            if request.WhichOneof("message") == "frames":
                self._stamp(request.frames, track)
                self._heard_ns[track_id] = now_ns
            return request
        if not self.closing:
            return None
        self._close_sent = True
        request = ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())
        request.close.sent_time.FromNanoseconds(self._end_ns())
        return request

    def _due_ns(self, track_id: str) -> int:
        track = self.tracks[track_id]
        heartbeat_ns = self._heard_ns[track_id] + round(self._settings.heartbeat_seconds * NANOSECONDS)
        if not track.has_unsent:
            return heartbeat_ns
        if (
            self.closing
            or track.unsent_frames >= self._settings.batch_frames
            or track.unsent_bytes >= self._settings.batch_bytes
            or not track.unsent_frames
        ):
            return 0
        batch_ns = self._queued_ns[track_id] + round(self._settings.batch_seconds * NANOSECONDS)
        return min(batch_ns, heartbeat_ns)

    def _stamp(self, batch: ingest_pb2.FrameBatch, track: OutgoingTrack) -> None:
        complete_ns = self._sent_ns(track)
        now_ns = complete_ns if self.is_media else self._clock.now_ns()
        batch.sent_time.FromNanoseconds(now_ns)
        if complete_ns < now_ns:
            batch.complete_time.FromNanoseconds(complete_ns)

    def _sent_ns(self, track: OutgoingTrack) -> int:
        """Up to which time all that was captured on the track is sent."""
        now_ns = track.complete_until_ns if self.is_media else self._clock.now_ns()
        if self._settings.told_silence:
            now_ns = min(now_ns, track.complete_until_ns)
        unsent_ns = track.first_unsent_capture_ns()
        return now_ns if unsent_ns is None else min(now_ns, unsent_ns)

    def _end_ns(self) -> int:
        if self._close_ns is not None:
            return self._close_ns
        return max(self._sent_ns(track) for track in self.tracks.values())
