"""A node on a clock of its own, with a worker or without: who has no capacity, who does not come back in time."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from grpc import aio

from roomtape.v1 import event_pb2, event_pb2_grpc, media_pb2, room_pb2, task_pb2
from roomtape_service.app import SOCKET_NAME, Node
from roomtape_service.clock import ManualClock
from roomtape_service.ids import RandomIds
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.settings import parse
from tests.integration.bad_input.calling import call, refused
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.publishing import RawPublish, opening
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.witness import offer_of
from tests.support.waiting import eventually

CROWD = 200
OFFERS = [offer_of(media_pb2.CODEC_OPUS)]
ROOM = room_pb2.DescribeRoomRequest(app_id="app", room_id="r")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def node(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Node]:
    """Without a worker."""
    settings = parse(
        {
            "data_dir": str(tmp_path),
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "create_default_application": "app",
            "drain_seconds": 1,
        }
    )
    node = Node(settings, clock, RandomIds(), random.Random(1))
    await node.start()
    try:
        yield node
    finally:
        await node.aclose()


@pytest.fixture
async def channel(node: Node) -> AsyncIterator[aio.Channel]:
    """To the node, whose application `app` has the room `r`."""
    async with aio.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        request = room_pb2.CreateRoomRequest(app_id="app", room_id="r")
        await call(channel, "RoomService.CreateRoom", request)
        yield channel


@covers("RecordingService.StartRecord", "NO_CAPACITY")
async def test_without_a_worker_nothing_is_started(
    channel: aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = WorkerPool.wait_for_worker
    monkeypatch.setattr(WorkerPool, "wait_for_worker", lambda pool, _seconds: wait(pool, 0.05))
    listing = task_pb2.ListTasksRequest(app_id="app")
    before = await call(channel, "RecordingService.ListTasks", listing)
    request = task_pb2.StartRecordRequest(app_id="app", room_id="r", mode=task_pb2.RECORD_MODE_SINGLE)
    told = await refused(channel, "RecordingService.StartRecord", request)
    Expected("NO_CAPACITY").check(told)
    assert told.retry_seconds is not None
    assert await call(channel, "RecordingService.ListTasks", listing) == before


async def test_who_vanishes_leaves_after_thirty_seconds_and_may_come_back_before(
    channel: aio.Channel, clock: ManualClock
) -> None:
    assert not await vanish(channel, "ben")
    clock.advance(20)
    assert not await vanish(channel, "ada")
    clock.advance(11)
    await eventually(partial(are_there, channel, "ada"), "who did not come back has left, and nobody else")
    assert await vanish(channel, "ada")
    clock.advance(31)
    await eventually(partial(are_there, channel), "who was back has left in the end")
    events = event_pb2.WatchEventsRequest(app_id="app", origin=event_pb2.WATCH_ORIGIN_OLDEST)
    events.filter.types.append(event_pb2.EVENT_TYPE_PARTICIPANT_LEFT)
    left = []
    async for response in event_pb2_grpc.WatchServiceStub(channel).WatchEvents(events):
        if response.WhichOneof("item") == "event":
            left.append((response.event.participant.user_id, response.event.participant.leave_reason))
        if len(left) == 2:
            break
    assert left == [("ben", event_pb2.LEAVE_REASON_LOST), ("ada", event_pb2.LEAVE_REASON_LOST)]


async def test_a_task_that_everybody_left_is_held_for_twelve_hours(
    node: Node, channel: aio.Channel, clock: ManualClock, tmp_path: Path
) -> None:
    folders = ["--socket", str(tmp_path / "run" / SOCKET_NAME), "--spool", str(tmp_path / "spool")]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "roomtape_service.recording.worker", *folders, "--index", "0"
    )
    try:
        assert await node.wait_for_worker(30)
        start = task_pb2.StartRecordRequest(app_id="app", room_id="r", mode=task_pb2.RECORD_MODE_SINGLE)
        started = await call(channel, "RecordingService.StartRecord", start)
        assert isinstance(started, task_pb2.StartRecordResponse)
        describe = task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=started.task.task_id)

        async def task() -> task_pb2.Task:
            described = await call(channel, "RecordingService.DescribeRecordInfo", describe)
            assert isinstance(described, task_pb2.DescribeRecordInfoResponse)
            return described.task

        async def has_ended() -> bool:
            return (await task()).state == task_pb2.TASK_STATE_COMPLETED

        assert not await vanish(channel, "ada")
        clock.advance(31)
        await eventually(partial(are_there, channel), "who was in has left")
        assert (await task()).state == task_pb2.TASK_STATE_IDLE
        clock.advance(12 * 3600 - 60)
        assert not await vanish(channel, "ben")
        assert (await task()).state == task_pb2.TASK_STATE_RECORDING
        clock.advance(31)
        await eventually(partial(are_there, channel), "who came back has left")
        clock.advance(12 * 3600 - 60)
        assert (await task()).state == task_pb2.TASK_STATE_IDLE
        clock.advance(61)
        await eventually(has_ended, "nobody came back")
        assert (await task()).stop_reason == task_pb2.STOP_REASON_IDLE_TIMEOUT
    finally:
        worker.kill()
        await worker.wait()


async def test_a_crowd_that_vanishes_at_once_is_seen_to_be_gone(node: Node, channel: aio.Channel) -> None:
    command = ["-m", "tests.integration.bad_input.crowd", f"127.0.0.1:{node.port}", str(CROWD)]
    crowd = await asyncio.create_subprocess_exec(sys.executable, *command)

    async def are_in() -> bool:
        return len(await participants(channel)) == CROWD

    async def are_gone() -> bool:
        return not any(each.connected for each in await participants(channel))

    try:
        await eventually(are_in, "the crowd is in the room")
    finally:
        crowd.kill()
        await crowd.wait()
    await eventually(are_gone, "everybody is seen to be gone")


async def vanish(channel: aio.Channel, user_id: str) -> bool:
    """Publishes and breaks off; whether that went on with a session. Returns when it is seen."""
    async with RawPublish(channel) as stream:
        opened = await stream.open(opening("r", user_id, OFFERS))

    async def is_seen() -> bool:
        return any(each.user_id == user_id and not each.connected for each in await participants(channel))

    await eventually(is_seen, "the connection is seen to be broken")
    return opened.resumed


async def participants(channel: aio.Channel) -> list[room_pb2.Participant]:
    described = await call(channel, "RoomService.DescribeRoom", ROOM)
    assert isinstance(described, room_pb2.DescribeRoomResponse)
    return list(described.room.participants)


async def are_there(channel: aio.Channel, *user_ids: str) -> bool:
    return [each.user_id for each in await participants(channel)] == list(user_ids)
