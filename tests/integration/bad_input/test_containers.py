"""A task whose containers can't hold what somebody publishes: refused at the start, told when they come later."""

import numpy as np
import pytest

from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.cases import covers, tells
from tests.integration.bad_input.content import noise_frame, opus_packets, packets_of
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.recorded import until_files
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.witness import START_NS, offer_of, path_of, record
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

PCM, OPUS = offer_of(media_pb2.CODEC_PCM_S16LE), offer_of(media_pb2.CODEC_OPUS)
MEDIA, OGG = room_pb2.ROOM_CLOCK_MEDIA, media_pb2.CONTAINER_OGG


@covers("RecordingService.StartRecord", "CODEC_NOT_IN_CONTAINER")
@pytest.mark.parametrize("mode", [task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_SINGLE_AND_MIXED])
async def test_ogg_alone_is_refused_while_somebody_publishes_pcm(
    world: World, mode: task_pb2.RecordMode.ValueType
) -> None:
    room_id = f"pcm-is-there-{mode}"
    await world.client.rooms.CreateRoom(
        room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=MEDIA)
    )
    request = task_pb2.StartRecordRequest(
        app_id="app",
        room_id=room_id,
        mode=mode,
        output=task_pb2.OutputSettings(single_containers=[OGG]),
    )
    async with RawPublish(world.channel) as ada, RawPublish(world.channel) as ben:
        await ada.open(opening(room_id, "ada", [PCM]))
        await ben.open(opening(room_id, "ben", [OPUS]))
        async with world.unchanged():
            told = await world.refused("RecordingService.StartRecord", request)
        field = "output.single_containers"
        Expected("CODEC_NOT_IN_CONTAINER", (field,), {"userId": "ada"}).check(told)
        # Out of scope they are in nobody's way.
        request.subscription.audio.block_user_ids.append("ada")
        started = await world.call("RecordingService.StartRecord", request)
    assert isinstance(started, task_pb2.StartRecordResponse)
    await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))
    await world.client.wait_until_complete("app", started.task.task_id)


@tells("CODEC_NOT_IN_CONTAINER")
async def test_who_comes_later_with_pcm_is_told_of_and_costs_nobody_else(world: World) -> None:
    room_id = "pcm-comes-later"
    task_id = await record(world.client, room_id, MEDIA, [OGG])
    packets = opus_packets(10, 5)
    noise = [noise_frame(np.random.default_rng(5))] * 10
    async with RawPublish(world.channel) as ada, RawPublish(world.channel) as ben:
        await ben.open(opening(room_id, "ben", [OPUS]))
        await ben.send(batch(frames(packets[:5]), sent_ns=START_NS))
        await ada.open(opening(room_id, "ada", [PCM]))
        await ada.send(batch(frames(noise), sent_ns=START_NS))
        await ben.send(batch(frames(packets[5:], 6), sent_ns=START_NS))
        await ada.close()
        await ben.close()
    [file] = await until_files(world.client, task_id, "ben", segment_pb2.SEGMENT_STATE_UPLOADED)
    assert packets_of(path_of(file)) == packets
    await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))
    described = await world.client.wait_until_complete("app", task_id)
    assert {segment.user_id for segment in described.segments} == {"ben"}
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    origin = event_pb2.WATCH_ORIGIN_OLDEST
    async with world.client.watch_events("app", origin=origin, filter=wanted) as events:
        warnings = [event.warning async for event in events if event.type == event_pb2.EVENT_TYPE_WARNING]
    [warning] = warnings
    assert warning.reason == error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER
    assert warning.user_id == "ada"
    assert "'ada'" in warning.message
