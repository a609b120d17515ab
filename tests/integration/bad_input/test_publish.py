"""Publish streams that end by what was sent on them: the others go on, and nothing is changed."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from roomtape.v1 import ingest_pb2, media_pb2, room_pb2, segment_pb2
from tests.integration.bad_input.content import noise_frame, samples_of, without_silence
from tests.integration.bad_input.publish_cases import AFTER_OPENED, BEFORE_OPENED, StreamCase
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.recorded import until_files
from tests.integration.bad_input.witness import START_NS, offer_of, path_of
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

GOOD_FRAMES = 5


@pytest.mark.parametrize("case", BEFORE_OPENED, ids=lambda case: case.name)
async def test_a_stream_that_does_not_open_changes_nothing(world: World, case: StreamCase) -> None:
    async with world.unchanged(), RawPublish(world.channel) as stream:
        await stream.send(*case.messages(world))
        refused = await stream.refusal()
    case.expected(world).check(refused)


@dataclass
class Session:
    """A publisher of good frames, before the message that ends its stream."""

    case: StreamCase
    user_id: str
    stream: RawPublish
    good: list[bytes]


@pytest.mark.parametrize("clock", ["media", "live"])
async def test_a_stream_ends_by_what_it_sent_and_what_was_good_before_is_kept(
    world: World, clock: str
) -> None:
    witness = world.witness
    room_id, task_id = {
        "media": (witness.room_id, witness.task_id),
        "live": (witness.live_room_id, witness.live_task_id),
    }[clock]
    randomness = np.random.default_rng(7)

    async def begin(number: int, case: StreamCase) -> Session:
        user_id = f"mallory-{clock}-{number}"
        good = [noise_frame(randomness) for _ in range(GOOD_FRAMES)]
        stream = await streams.enter_async_context(RawPublish(world.channel))
        await stream.open(opening(room_id, user_id, [offer_of(media_pb2.CODEC_PCM_S16LE)]))
        # What a live room's publisher captured before joining is not recorded.
        await stream.send(batch(frames(good), sent_ns=START_NS))
        await stream.until_acknowledged(GOOD_FRAMES)
        await until_files(world.client, task_id, user_id, segment_pb2.SEGMENT_STATE_RECORDING)
        return Session(case, user_id, stream, good)

    async def end(session: Session) -> None:
        await session.stream.send(*session.case.messages(world))
        refused = await session.stream.refusal()
        try:
            session.case.expected(world).check(refused)
        except AssertionError as error:
            raise AssertionError(f"{session.case.name}: {error}") from error

    async def look(session: Session) -> None:
        await world.client.rooms.RemoveParticipant(
            room_pb2.RemoveParticipantRequest(app_id="app", room_id=room_id, user_id=session.user_id)
        )
        uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
        [file] = await until_files(world.client, task_id, session.user_id, uploaded)
        recorded = without_silence(samples_of(path_of(file)))
        np.testing.assert_array_equal(
            recorded, np.frombuffer(b"".join(session.good), "<i2"), session.case.name
        )
        assert file.statistics == segment_pb2.FrameStatistics(recorded=GOOD_FRAMES), session.case.name

    async with AsyncExitStack() as streams:
        sessions = await asyncio.gather(*(begin(number, case) for number, case in enumerate(AFTER_OPENED)))
        async with world.unchanged():
            await asyncio.gather(*map(end, sessions))
        await asyncio.gather(*map(look, sessions))


async def test_a_message_that_no_server_should_hold_ends_its_stream_alone(world: World) -> None:
    request = opening(world.witness.live_room_id, "huge", [offer_of(media_pb2.CODEC_PCM_S16LE)])
    async with RawPublish(world.channel) as stream, RawPublish(world.channel) as neighbour:
        await neighbour.open(opening(world.room_id, "neighbour", [offer_of(media_pb2.CODEC_PCM_S16LE)]))
        await stream.open(request)
        async with world.unchanged():
            await stream.send(batch(frames([bytes(384 * 1024)] * 40)))
            error = await stream.error()
        # gRPC's core refuses it before it is read, so there is no reason, but there is the code.
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await neighbour.close()).reason == ingest_pb2.GOODBYE_REASON_CLOSED
    await world.client.rooms.RemoveParticipant(
        room_pb2.RemoveParticipantRequest(app_id="app", room_id=request.room_id, user_id="huge")
    )
