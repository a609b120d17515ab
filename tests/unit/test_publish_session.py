"""How much of a publisher's tracks is taken in before it is safe."""

import asyncio
from dataclasses import dataclass, field

import pytest

from roomtape.v1 import ingest_pb2, media_pb2, room_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.ingest.session import REJECTED_LIMIT, PublishSession
from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed
from roomtape_service.recording.front.held import HELD_BYTES_LIMIT
from roomtape_service.recording.front.recording import FeedRecording, RecordingFacts
from roomtape_service.recording.front.track import TrackFacts
from roomtape_service.rooms.room import LiveParticipant, LiveRoom, LiveTrack

NOW = 1_700_000_000_000_000_000
TRACKS = ("mic", "screen")
PAYLOAD = bytes(256 * 1024)
FILLING = HELD_BYTES_LIMIT // len(PAYLOAD)


@dataclass
class Publishing:
    """A session whose tracks are recorded by nobody who would say that they are safe."""

    session: PublishSession
    who: LiveParticipant
    written: list[ingest_pb2.PublishResponse]
    sequences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRACKS, 0))

    async def take(self, track_id: str) -> None:
        self.sequences[track_id] += 1
        frame = ingest_pb2.Frame(sequence=self.sequences[track_id], payload=PAYLOAD)
        frame.capture_time.FromNanoseconds(NOW)
        async with asyncio.timeout(1):
            await self.session.take(ingest_pb2.FrameBatch(track_id=track_id, frames=[frame]))


@pytest.fixture
async def publishing() -> Publishing:
    feed = RoomFeed(FeedFacts("room", protocol.RoomClock.MEDIA), {})
    facts = RecordingFacts(
        recording_id="mix",
        task_id="task",
        kind=protocol.RecordingKind.MIXED,
        containers=(protocol.Container.WAV,),
        segment_ns=3600 * 10**9,
        segment_bytes=1 << 31,
        bitrate=64_000,
        mute_ends_segment=False,
        break_wait_ns=30 * 10**9,
        from_ns=0,
    )
    feed.start_recording(FeedRecording(facts))
    who = LiveParticipant("key", "ada", "session", NOW)
    for track_id in TRACKS:
        proto = room_pb2.Track(track_id=track_id, codec=media_pb2.CODEC_PCM_S16LE)
        track_facts = TrackFacts(track_id, "ada", protocol.TrackCodec.PCM_S16LE, 48_000, 1)
        who.tracks[track_id] = LiveTrack(track_id, proto, feed.add_track(track_facts))
    feed.set_tracks("mix", TRACKS)
    room = LiveRoom("room", "app", "room", room_pb2.ROOM_CLOCK_MEDIA, NOW, feed, NOW)

    written: list[ingest_pb2.PublishResponse] = []

    async def write(response: ingest_pb2.PublishResponse) -> None:
        written.append(response)

    session = PublishSession(ManualClock(NOW), write)
    await session.start(room, who, resumed=False)
    return Publishing(session, who, written)


async def test_what_one_track_waits_for_may_come_on_another(publishing: Publishing) -> None:
    for _ in range(FILLING + 1):
        await publishing.take("mic")
    for _ in range(FILLING // 2):
        await publishing.take("screen")


async def test_a_publisher_who_is_far_ahead_waits_until_something_is_safe(publishing: Publishing) -> None:
    for _ in range(2 * FILLING - 1):
        await publishing.take("mic")
    with pytest.raises(TimeoutError):
        await publishing.take("mic")
    publishing.who.tracks["mic"].feed.acknowledge(2)
    await publishing.take("screen")


async def test_who_does_not_read_what_was_rejected_is_not_read_either(publishing: Publishing) -> None:
    feed = publishing.who.tracks["mic"].feed
    assert feed.on_rejected is not None
    for sequence in range(1, 2 * REJECTED_LIMIT, 2):
        feed.on_rejected(protocol.Rejected(feed.handle, sequence, sequence, "CORRUPT_PAYLOAD", "no Opus"))
    with pytest.raises(TimeoutError):
        await publishing.take("screen")
    writing = asyncio.create_task(publishing.session.run_writer())
    await publishing.take("screen")
    writing.cancel()
    assert sum(each.HasField("frames_rejected") for each in publishing.written) == REJECTED_LIMIT
