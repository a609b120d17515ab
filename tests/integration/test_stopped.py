"""The node dies right after a task was stopped: what had come before the stop is recorded, and nothing after it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from roomtape.client import Client, RetrySettings
from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.faults.failpoint_file import FailpointFile
from tests.support.audio import tone
from tests.support.hearing import assert_heard, select
from tests.support.server import ServerProcess, running_server
from tests.support.stage import PCM, TRACK, Speaker, Stage
from tests.support.waiting import eventually

APP, ROOM = "app", "room"
WAV = media_pb2.CONTAINER_WAV
BOTH = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
PART_BYTES = 5 << 20
STOPPED = "commit:tasks.stopping.Stopping.stop.work:after"
CLOSED = "commit:rooms.rooms.Rooms._close.work:after"


@dataclass
class Theatre:
    """A server that can be ended as soon as it has stored that a task was stopped."""

    server: ServerProcess
    client: Client
    failpoints: FailpointFile

    def hold_worker(self) -> None:
        """From now on nothing that comes gets to the spool."""
        for worker in self.server.workers():
            worker.suspend()

    async def kill_at(self, order: "asyncio.Task[None]") -> None:
        """Ends every process when `order` is stored, and starts the server again."""
        await eventually(lambda: self.failpoints.fired == 1, "it is stored")
        self.failpoints.arm()
        await self.server.kill()
        await self.server.start()
        async with asyncio.timeout(30):
            await order

    def arm(self, name: str) -> None:
        """The node stands still as soon as it has stored that."""
        never = str(self.failpoints.path.with_name("never"))
        self.failpoints.arm({"name": name, "action": "pause", "until": never})


@asynccontextmanager
async def theatre(tmp_path: Path) -> AsyncIterator[Theatre]:
    failpoints = FailpointFile(tmp_path / "failpoints", PART_BYTES)
    async with (
        running_server(tmp_path / "data", failpoints_file=failpoints.path) as server,
        Client(server.target, retry=RetrySettings(attempts=100, max_seconds=0.5)) as client,
    ):
        yield Theatre(server, client, failpoints)


async def stop(client: Client, task_id: str) -> None:
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=APP, task_id=task_id))


async def gaps(client: Client, task_id: str) -> list[event_pb2.Event]:
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events(APP, origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(20):
        return [event async for event in watch if event.type == event_pb2.EVENT_TYPE_GAP]


async def completed(client: Client, task_id: str) -> Sequence[segment_pb2.Segment]:
    async with asyncio.timeout(60):
        described = await client.wait_until_complete(APP, task_id)
    assert described.task.state == task_pb2.TASK_STATE_COMPLETED
    return sorted(described.segments, key=lambda each: (each.user_id, each.segment_id))


async def test_who_comes_back_sends_what_came_before_the_stop(tmp_path: Path) -> None:
    async with theatre(tmp_path) as play:
        client = play.client
        stage, ada, ben = Stage(client, ROOM), Speaker("ada", 700, PCM), Speaker("ben", 1200, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(0.4, ada, ben)
        await stage.settle()
        play.hold_worker()
        await stage.talk(1.0, ada, ben)
        await told(stage, ada, ben)
        spoken = {each.user_id: list(each.log) for each in (ada, ben)}
        play.arm(STOPPED)
        stopping = asyncio.create_task(stop(client, stage.task_id))
        await eventually(lambda: play.failpoints.fired == 1, "the stop is stored")
        await stage.talk(1.0, ada, ben)
        await play.kill_at(stopping)
        segments = await completed(client, stage.task_id)
        for each in (ada, ben):
            assert_heard(select(segments, WAV, each.user_id), {each.hertz: (spoken[each.user_id], each.dbfs)})
        assert_heard(
            select(segments, WAV), {each.hertz: (spoken[each.user_id], each.dbfs) for each in (ada, ben)}
        )
        assert not await gaps(client, stage.task_id)
        await stage.leave(ada, ben)


@pytest.mark.parametrize("order", ["stop", "close"])
async def test_what_was_kept_of_a_leaver_is_in_the_mix(tmp_path: Path, order: str) -> None:
    async with theatre(tmp_path) as play:
        client = play.client
        stage, ada, ben = Stage(client, ROOM), Speaker("ada", 700, PCM), Speaker("ben", 1200, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(0.4, ada, ben)
        end_ns = await ada.say(PCM.frames(tone(ada.hertz, 1.0, dbfs=ada.dbfs)), stage.now_ns, is_live=False)
        ada.live().advance(TRACK, end_ns)
        async with asyncio.timeout(5):
            await ada.live().close()
        assert ada.live().statistics().unacknowledged_frames == 0
        play.hold_worker()
        play.arm(STOPPED if order == "stop" else CLOSED)
        ordered = asyncio.create_task(stop(client, stage.task_id) if order == "stop" else close_room(client))
        await play.kill_at(ordered)
        segments = await completed(client, stage.task_id)
        assert_heard(select(segments, WAV, "ada"), {ada.hertz: (ada.log, ada.dbfs)})
        assert_heard(select(segments, WAV), {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})
        departed = play.server.data_dir / "spool" / ".departed"
        await eventually(lambda: not list(departed.iterdir()), "nothing is kept that is in the mix")
        await ben.live().aclose()


@pytest.mark.parametrize("is_stopped", [True, False], ids=["stopped", "running"])
async def test_who_was_leaving_comes_back_to_be_told_that_all_is_safe(
    tmp_path: Path, is_stopped: bool
) -> None:
    async with theatre(tmp_path) as play:
        client = play.client
        stage, ada = Stage(client, ROOM, is_live=True), Speaker("ada", 700, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada)
        await stage.talk(0.4, ada)
        await ada.live().flush()
        stage.now_ns = time.time_ns()
        play.hold_worker()
        await stage.talk(0.8, ada)
        publisher = ada.live()
        await stage.leave(ada)
        if is_stopped:
            play.arm(STOPPED)
            await play.kill_at(asyncio.create_task(stop(client, stage.task_id)))
        else:
            await play.server.kill()
            await play.server.start()
        async with asyncio.timeout(30):
            await publisher.close()
        await stop(client, stage.task_id)
        segments = await completed(client, stage.task_id)
        assert_heard(select(segments, WAV, "ada"), {ada.hertz: (ada.log, ada.dbfs)})
        assert_heard(select(segments, WAV), {ada.hertz: (ada.log, ada.dbfs)})
        assert not await gaps(client, stage.task_id)


async def test_what_nobody_sends_again_is_told_as_a_gap_and_the_task_completes(tmp_path: Path) -> None:
    async with theatre(tmp_path) as play:
        client = play.client
        stage, ada = Stage(client, ROOM, is_live=True), Speaker("ada", 700, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada)
        await stage.talk(0.4, ada)
        await ada.live().flush()
        stage.now_ns = time.time_ns()
        play.hold_worker()
        await stage.talk(0.8, ada)
        await told(stage, ada)
        play.arm(STOPPED)
        ordered = asyncio.create_task(stop(client, stage.task_id))
        await eventually(lambda: play.failpoints.fired == 1, "the stop is stored")
        await ada.live().aclose()
        await play.kill_at(ordered)
        await client.rooms.RemoveParticipant(
            room_pb2.RemoveParticipantRequest(app_id=APP, room_id=ROOM, user_id="ada")
        )
        segments = await completed(client, stage.task_id)
        task = await client.recording.DescribeRecordInfo(
            task_pb2.DescribeRecordInfoRequest(app_id=APP, task_id=stage.task_id)
        )
        found = await gaps(client, stage.task_id)
        assert {each.gap.recording_id for each in found} == {each.recording_id for each in segments}
        assert {each.gap.user_id for each in found} == {"ada"}
        ends = {each.recording_id: each.end_time.ToNanoseconds() for each in segments}
        for each in found:
            assert each.gap.start_time.ToNanoseconds() == ends[each.gap.recording_id]
            assert each.gap.end_time == task.task.stop_time


async def told(stage: Stage, *speakers: Speaker) -> None:
    """The node has all that these said so far: what is said of a mute stands behind it."""
    for each in speakers:
        each.live().mute(TRACK, True)

    async def has_come() -> bool:
        request = room_pb2.DescribeRoomRequest(app_id=APP, room_id=ROOM)
        present = (await stage.client.rooms.DescribeRoom(request)).room.participants
        users = {each.user_id for each in speakers}
        return all(each.tracks[0].muted for each in present if each.user_id in users)

    await eventually(has_come, "all that was said has come")
    for each in speakers:
        each.live().mute(TRACK, False)


async def close_room(client: Client) -> None:
    await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id=APP, room_id=ROOM))
