"""Times that jump within what is possible: a break in that user's files, and no hours of silence in anybody's."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from roomtape.v1 import ingest_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.content import FRAME_NS, noise_frame, samples_of, without_silence
from tests.integration.bad_input.publishing import RawPublish, batch, frame, opening
from tests.integration.bad_input.witness import START_NS, offer_of, path_of
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

FRAMES = 10
FRAMES_A_MINUTE = 3000
DAY = 24 * 60 * FRAMES_A_MINUTE
MOST_SILENCE_SECONDS = 31.0


def burst(first: int, at: int, payloads: Sequence[bytes]) -> ingest_pb2.PublishRequest:
    """Frames from the sequence `first`, which begin `at` frames after the first; sent when they begin."""
    made = [frame(first + index, payload, at=at + index) for index, payload in enumerate(payloads)]
    return batch(made, sent_ns=START_NS + at * FRAME_NS)


@dataclass(frozen=True, slots=True)
class Jump:
    """What a user says after a burst; `bursts` is how many of them are heard in the end."""

    about: str
    messages: Callable[[Sequence[bytes]], Sequence[ingest_pb2.PublishRequest]]
    bursts: int


def sent(minutes: int) -> ingest_pb2.PublishRequest:
    return batch([], sent_ns=START_NS + minutes * FRAMES_A_MINUTE * FRAME_NS)


def complete(minutes: int) -> ingest_pb2.PublishRequest:
    request = sent(0)
    request.frames.complete_time.FromNanoseconds(START_NS + minutes * FRAMES_A_MINUTE * FRAME_NS)
    return request


def closed(minutes: int) -> ingest_pb2.PublishRequest:
    request = ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())
    request.close.sent_time.FromNanoseconds(START_NS + minutes * FRAMES_A_MINUTE * FRAME_NS)
    return request


JUMPS = (
    Jump("frames a minute later", lambda frames: [burst(FRAMES + 1, FRAMES_A_MINUTE, frames), closed(0)], 2),
    Jump("frames of tomorrow", lambda frames: [burst(FRAMES + 1, DAY * 9 // 10, frames), closed(0)], 2),
    Jump("a clock of tomorrow", lambda _: [sent(1200), closed(0)], 1),
    Jump(
        "a clock of tomorrow, and frames of today",
        lambda frames: [sent(1200), burst(FRAMES + 1, FRAMES, frames), closed(0)],
        2,
    ),
    Jump(
        "complete up to tomorrow",
        lambda frames: [complete(1200), burst(FRAMES + 1, FRAMES, frames), closed(0)],
        2,
    ),
    Jump("an end of tomorrow", lambda _: [closed(1200)], 1),
    Jump("a clock of another age", lambda _: [sent(200 * 365 * 1440), closed(0)], 1),
)


@pytest.mark.parametrize("last", ["jumper", "steady"])
@pytest.mark.parametrize(
    "clock", [room_pb2.ROOM_CLOCK_MEDIA, room_pb2.ROOM_CLOCK_ARRIVAL], ids=["media", "live"]
)
async def test_a_jump_is_a_break_and_no_silence_of_hours(
    world: World, last: str, clock: room_pb2.RoomClock.ValueType
) -> None:
    await asyncio.gather(*(check(world, jump, last, clock) for jump in JUMPS))


async def check(world: World, jump: Jump, last: str, clock: room_pb2.RoomClock.ValueType) -> None:
    """Records one who jumps beside one who does not; who is `last` leaves last."""
    client, room_id = world.client, f"{jump.about}, {last}, {clock}"
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=clock))
    wav = [media_pb2.CONTAINER_WAV]
    started = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id="app",
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
            output=task_pb2.OutputSettings(single_containers=wav, mixed_containers=wav),
        )
    )
    randomness = np.random.default_rng(len(room_id))
    steady = [noise_frame(randomness) for _ in range(4 * FRAMES)]
    jumping = [noise_frame(randomness) for _ in range(2 * FRAMES)]
    offer = offer_of(media_pb2.CODEC_PCM_S16LE)
    async with RawPublish(world.channel) as jumper, RawPublish(world.channel) as other:
        await jumper.open(opening(room_id, "jumper", [offer]))
        await other.open(opening(room_id, "steady", [offer]))
        await other.send(burst(1, 0, steady[: 2 * FRAMES]))
        await jumper.send(burst(1, 0, jumping[:FRAMES]))
        await jumper.until_acknowledged(FRAMES - 1)
        await other.send(burst(2 * FRAMES + 1, 2 * FRAMES, steady[2 * FRAMES :]))
        if last == "jumper":
            await other.send(closed(0))
        await jumper.send(*jump.messages(jumping[FRAMES:]))
        if last == "steady":
            await other.send(closed(0))
        await asyncio.gather(jumper.goodbye(), other.goodbye())
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=started.task.task_id))
    described = await client.wait_until_complete("app", started.task.task_id)
    files: dict[str, list[segment_pb2.Segment]] = {"jumper": [], "steady": [], "": []}
    for segment in described.segments:
        files[segment.user_id].append(segment)
    for user_id, segments in files.items():
        frames = {"jumper": jump.bursts * FRAMES, "steady": len(steady), "": len(steady) + FRAMES}[user_id]
        seconds = sum(segment.duration.ToNanoseconds() for segment in segments) / 1e9
        assert seconds <= frames * FRAME_NS / 1e9 + MOST_SILENCE_SECONDS, f"{room_id}: {user_id}: {segments}"
    for user_id, published in (("jumper", jumping[: jump.bursts * FRAMES]), ("steady", steady)):
        assert sum(each.statistics.recorded for each in files[user_id]) == len(published), (
            room_id,
            files[user_id],
        )
        whole = np.concatenate([samples_of(path_of(each)) for each in files[user_id]])
        np.testing.assert_array_equal(
            without_silence(whole), np.frombuffer(b"".join(published), "<i2"), room_id
        )
    assert sum(each.statistics.recorded for each in files[""]) == len(steady) + jump.bursts * FRAMES, room_id


async def test_sequences_that_jump_to_their_end_cost_nobody_a_file(world: World) -> None:
    """Of each user nearly 2**63 frames are missing: more than can be counted for the mix."""
    client, room_id = world.client, "the last of all sequences"
    clock = room_pb2.ROOM_CLOCK_MEDIA
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=clock))
    wav = [media_pb2.CONTAINER_WAV]
    started = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id="app",
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
            output=task_pb2.OutputSettings(single_containers=wav, mixed_containers=wav),
        )
    )
    randomness = np.random.default_rng(1)
    payloads = [noise_frame(randomness) for _ in range(FRAMES + 1)]
    offer = offer_of(media_pb2.CODEC_PCM_S16LE)
    async with RawPublish(world.channel) as one, RawPublish(world.channel) as other:
        for user_id, publisher in (("one", one), ("other", other)):
            await publisher.open(opening(room_id, user_id, [offer]))
            await publisher.send(burst(1, 0, payloads[:FRAMES]))
            await publisher.send(burst(2**63 - 1, FRAMES, payloads[FRAMES:]), closed(0))
        await asyncio.gather(one.goodbye(), other.goodbye())
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=started.task.task_id))
    async with asyncio.timeout(20):
        described = await client.wait_until_complete("app", started.task.task_id)
    recorded = {each.user_id: each.statistics.recorded for each in described.segments}
    assert recorded == {"one": FRAMES + 1, "other": FRAMES + 1, "": 2 * (FRAMES + 1)}
