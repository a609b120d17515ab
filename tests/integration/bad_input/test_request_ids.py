"""The same request id: with the same payload the same answer, with another one a refusal; never a second effect."""

import pytest

from roomtape.v1 import application_pb2, media_pb2, room_pb2, task_pb2
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.contract import message_of, method, requests_with_id
from tests.integration.bad_input.publishing import RawPublish, opening
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.replays import REPLAYS, USER, assign
from tests.integration.bad_input.witness import offer_of, record
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")


@covers(REPLAYS, "REQUEST_ID_REUSED")
@pytest.mark.parametrize("rpc", requests_with_id())
async def test_a_request_id_belongs_to_one_request(world: World, rpc: str) -> None:
    replay = REPLAYS[rpc]
    client = world.client
    room_id = f"replay-{rpc.rpartition('.')[2]}"
    task_id = await record(client, room_id, room_pb2.ROOM_CLOCK_MEDIA, [media_pb2.CONTAINER_WAV])
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=f"{room_id}-free"))
    await client.applications.CreateApplication(
        application_pb2.CreateApplicationRequest(application=application_pb2.Application(app_id=room_id))
    )
    async with RawPublish(world.channel) as guest:
        await guest.open(opening(room_id, USER, [offer_of(media_pb2.CODEC_PCM_S16LE)]))
        request = replay.request(room_id, await replay.prepare(world, room_id, task_id))
        other = message_of(method(rpc).input_type.full_name)()
        assign(request, "request_id", room_id)
        first = await world.call(rpc, request)
        if await stopped(world, task_id):
            await client.wait_until_complete("app", task_id)
        async with world.unchanged():
            assert await world.call(rpc, request) == first
            other.CopyFrom(request)
            replay.other(other)
            refused = await world.refused(rpc, other)
            name = rpc.rpartition(".")[2]
            Expected("REQUEST_ID_REUSED", metadata={"requestId": room_id, "method": name}).check(refused)
        await replay.move_on(world, room_id, task_id)
        if await stopped(world, task_id):
            await client.wait_until_complete("app", task_id)
        async with world.unchanged():
            assert await world.call(rpc, request) == first
    if not await stopped(world, task_id):
        await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))
        await client.wait_until_complete("app", task_id)


async def stopped(world: World, task_id: str) -> bool:
    """Whether the task was stopped; then events come by themselves until it is complete."""
    described = await world.client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=task_id)
    )
    return described.task.HasField("stop_time")


async def test_a_request_id_belongs_to_one_call(world: World) -> None:
    created = room_pb2.CreateRoomRequest(app_id="app", room_id="one-call", request_id="one-call")
    await world.call("RoomService.CreateRoom", created)
    async with world.unchanged():
        closed = room_pb2.CloseRoomRequest(app_id="app", room_id="one-call", request_id="one-call")
        refused = await world.refused("RoomService.CloseRoom", closed)
    Expected("REQUEST_ID_REUSED", metadata={"requestId": "one-call", "method": "CreateRoom"}).check(refused)


async def test_another_application_has_request_ids_of_its_own(world: World) -> None:
    for app_id in ("app", "gme"):
        request = room_pb2.CreateRoomRequest(app_id=app_id, room_id=f"own-{app_id}", request_id="own")
        answer = await world.call("RoomService.CreateRoom", request)
        assert isinstance(answer, room_pb2.CreateRoomResponse)
        assert (answer.room.app_id, answer.room.room_id) == (app_id, f"own-{app_id}")
