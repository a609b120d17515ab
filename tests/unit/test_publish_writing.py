"""A publishing stream whose writer fails: it must not look as if it had ended well."""

import asyncio
from typing import cast

import pytest
import structlog
from grpc import aio

from roomtape.v1 import error_pb2, ingest_pb2, media_pb2, room_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.errors import Refusal
from roomtape_service.ingest.grpc import IngestServicer
from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.track import TrackFacts
from roomtape_service.rooms.participants import Participants
from roomtape_service.rooms.room import LiveParticipant, LiveRoom, LiveTrack
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rpc.interceptors import Context

NOW = 1_700_000_000_000_000_000


class House:
    """One room, open to anybody."""

    def __init__(self) -> None:
        feed = RoomFeed(FeedFacts("room", protocol.RoomClock.ARRIVAL), {})
        self.room = LiveRoom("room", "app", "room", room_pb2.ROOM_CLOCK_ARRIVAL, NOW, feed, NOW)
        self.who = LiveParticipant("key", "ada", "session", NOW)
        proto = room_pb2.Track(track_id="mic", codec=media_pb2.CODEC_PCM_S16LE)
        facts = TrackFacts("mic", "ada", protocol.TrackCodec.PCM_S16LE, 48_000, 1)
        self.who.tracks["mic"] = LiveTrack("mic", proto, feed.add_track(facts))
        self.disconnected: list[str] = []

    async def require(self, app_id: str, room_id: str) -> LiveRoom:
        return self.room

    async def join(self, *_: object) -> tuple[LiveParticipant, bool]:
        return self.who, False

    async def disconnect(self, room: LiveRoom, user_id: str, connection: object) -> None:
        self.disconnected.append(user_id)


class BrokenStream:
    """Takes `opened`, and fails to write anything more; its publisher sends one batch, and waits."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._written = 0
        opening = ingest_pb2.PublishOpen(
            app_id="app", room_id="room", user_id="ada", publish_session_id="session"
        )
        opening.tracks.add(track_id="mic", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1)
        opening.sent_time.FromNanoseconds(NOW)
        frame = ingest_pb2.Frame(sequence=1, payload=bytes(1920))
        frame.capture_time.FromNanoseconds(NOW)
        batch = ingest_pb2.FrameBatch(track_id="mic", frames=[frame])
        self._requests = [
            ingest_pb2.PublishRequest(open=opening),
            ingest_pb2.PublishRequest(frames=batch),
        ]

    async def read(self) -> ingest_pb2.PublishRequest:
        if not self._requests:
            await asyncio.Event().wait()
        return self._requests.pop(0)

    async def write(self, response: ingest_pb2.PublishResponse) -> None:
        self._written += 1
        if self._written > 1:
            raise self._error


async def publish(house: House, stream: BrokenStream) -> None:
    servicer = IngestServicer(
        cast(Rooms, house), cast(Participants, house), cast(WorkerPool, None), ManualClock(NOW)
    )
    async with asyncio.timeout(5):
        await servicer.Publish(None, cast(Context, stream))


async def test_a_defect_of_the_writer_ends_the_stream_with_it() -> None:
    house, defect = House(), RuntimeError("a defect")
    with pytest.raises(RuntimeError) as raised:
        await publish(house, BrokenStream(defect))
    assert raised.value is defect
    assert house.disconnected == ["ada"]


async def test_a_stream_that_can_not_be_written_does_not_end_well() -> None:
    house = House()
    with structlog.testing.capture_logs() as logged, pytest.raises(Refusal) as raised:
        await publish(house, BrokenStream(aio.InternalError("broken")))
    assert raised.value.reason == error_pb2.ERROR_REASON_INTERNAL
    assert [(each["event"], each["error"]) for each in logged] == [("publisher_not_told", "broken")]
    assert house.disconnected == ["ada"]
