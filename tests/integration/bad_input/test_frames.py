"""Frames that are no media, or come at no time: rejected one by one, silence in their place, all others recorded."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from roomtape.v1 import error_pb2, ingest_pb2, media_pb2, segment_pb2
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import (
    FRAME_SAMPLES,
    noise_frame,
    opus_packets,
    packets_of,
    samples_of,
    without_silence,
)
from tests.integration.bad_input.frame_cases import BAD_FROM, FRAME_CASES, FrameCase
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.recorded import until_files
from tests.integration.bad_input.witness import START_NS, TRACK, offer_of, path_of
from tests.integration.bad_input.world import World
from tests.support.audio import aac_units, noise

pytestmark = pytest.mark.asyncio(loop_scope="package")

PCM, OPUS, AAC = media_pb2.CODEC_PCM_S16LE, media_pb2.CODEC_OPUS, media_pb2.CODEC_AAC
WAV, OGG = media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_OGG
GOOD_FRAMES = 10
ROUNDING_SAMPLES = 2
DAY_SECONDS = 86_400
SILENCE = b"\xff\xfe"
"""How the packets end that stand for silence in an Ogg file."""

Containers = Sequence[media_pb2.Container.ValueType]


@dataclass
class Sent:
    """What one case published: good frames, bad ones, good ones again."""

    case: FrameCase
    user_id: str
    good: list[bytes]
    bad: Sequence[ingest_pb2.Frame]

    @property
    def newest(self) -> int:
        return GOOD_FRAMES + len(self.bad)


async def publish(
    world: World, room_id: str, task_id: str, user_id: str, case: FrameCase, containers: Containers
) -> Sent:
    """Runs a case to its goodbye, with what was told on the way checked."""
    seed = zlib.crc32(user_id.encode())
    randomness = np.random.default_rng(seed)
    good = [noise_frame(randomness) for _ in range(GOOD_FRAMES)]
    if case.codec == OPUS:
        good = opus_packets(GOOD_FRAMES, seed)
    elif case.codec == AAC:
        good = aac_units(noise(GOOD_FRAMES * 1024 / 48_000, seed=seed))[:GOOD_FRAMES]
    bad = case.make()
    before = frames(good[: BAD_FROM - 1])
    after = frames(good[BAD_FROM - 1 :], BAD_FROM + len(bad))
    sent = Sent(case, user_id, good, bad)
    async with RawPublish(world.channel) as stream:
        await stream.open(opening(room_id, user_id, [offer_of(case.codec)]))
        await stream.send(batch(before, sent_ns=START_NS))
        await stream.until_acknowledged(len(before))
        count = len(containers) if case.codec == OPUS else 1
        growing = segment_pb2.SEGMENT_STATE_RECORDING
        await until_files(world.client, task_id, user_id, growing, count=count)
        await stream.send(batch(bad, sent_ns=START_NS), batch(after, sent_ns=START_NS))
        await stream.until_acknowledged(sent.newest)
        await stream.close()
    assert [(each.first_sequence, each.last_sequence) for each in stream.rejected] == [
        (BAD_FROM, BAD_FROM + len(bad) - 1)
    ], case.name
    [rejected] = stream.rejected
    assert rejected.track_id == TRACK
    assert error_pb2.ErrorReason.Name(rejected.reason) == f"ERROR_REASON_{case.reason}", case.name
    assert rejected.message
    return sent


async def check(world: World, sent: Sent, task_id: str, containers: Containers) -> None:
    """Looks at the files of a case."""
    case, uploaded = sent.case, segment_pb2.SEGMENT_STATE_UPLOADED
    count = len(containers) if case.codec == OPUS else 1
    files = await until_files(world.client, task_id, sent.user_id, uploaded, count=count)
    by_container = {file.container: file for file in files}
    wav = by_container[WAV]
    for file in files:
        counts = segment_pb2.FrameStatistics(recorded=GOOD_FRAMES, rejected=len(sent.bad))
        assert file.statistics == counts, f"{case.name}: {file}"
    samples = samples_of(path_of(wav))
    assert len(samples) == wav.sample_count
    if case.codec == PCM:
        # A live room's file goes on to when the user left.
        samples = np.trim_zeros(samples, "b")
        assert abs(len(samples) - sent.newest * FRAME_SAMPLES) <= ROUNDING_SAMPLES, f"{case.name}: {wav}"
        bad_from = (BAD_FROM - 1) * FRAME_SAMPLES
        bad_to = len(samples) - (GOOD_FRAMES - BAD_FROM + 1) * FRAME_SAMPLES
        assert not samples[bad_from:bad_to].any(), case.name
        published = np.frombuffer(b"".join(sent.good), "<i2")
        np.testing.assert_array_equal(without_silence(samples), published, case.name)
    elif OGG in by_container:
        packets = packets_of(path_of(by_container[OGG]))
        assert [each for each in packets if not each.endswith(SILENCE)] == sent.good, case.name


@tells("CORRUPT_PAYLOAD", "FRAME_TIME_INVALID")
@pytest.mark.parametrize("clock", ["media", "live"])
async def test_bad_frames_become_silence_and_the_others_stay(world: World, clock: str) -> None:
    witness = world.witness
    room_id, task_id, containers = {
        "media": (witness.room_id, witness.task_id, (WAV, OGG)),
        "live": (witness.live_room_id, witness.live_task_id, (WAV,)),
    }[clock]
    everything = await asyncio.gather(
        *(
            publish(world, room_id, task_id, f"mallory-{number}", case, containers)
            for number, case in enumerate(FRAME_CASES)
        )
    )
    await asyncio.gather(*(check(world, sent, task_id, containers) for sent in everything))


@pytest.mark.parametrize("clock", ["media", "live"])
async def test_who_sends_nothing_good_is_told_so_and_can_leave(world: World, clock: str) -> None:
    room_id = world.witness.room_id if clock == "media" else world.witness.live_room_id
    async with RawPublish(world.channel) as stream:
        await stream.open(opening(room_id, "noise", [offer_of(PCM)]))
        await stream.send(batch(frames([b"\x01"] * GOOD_FRAMES), sent_ns=START_NS))
        await stream.until_rejected(1)
        goodbye = await stream.close()
    assert goodbye.reason == ingest_pb2.GOODBYE_REASON_CLOSED
    assert stream.acknowledged == {TRACK: GOOD_FRAMES}


@pytest.mark.parametrize("clock", ["media", "live"])
async def test_a_first_frame_of_another_day_is_rejected(world: World, clock: str) -> None:
    room_id = world.witness.room_id if clock == "media" else world.witness.live_room_id
    first, *others = frames([noise_frame(np.random.default_rng(1))] * GOOD_FRAMES)
    first.capture_time.seconds -= 2 * DAY_SECONDS
    async with RawPublish(world.channel) as stream:
        await stream.open(opening(room_id, "early", [offer_of(PCM)]))
        await stream.send(batch([first, *others], sent_ns=START_NS))
        await stream.until_rejected(1)
        await stream.close()
    [rejected] = stream.rejected
    assert (rejected.first_sequence, rejected.last_sequence) == (1, 1)
    assert rejected.reason == error_pb2.ERROR_REASON_FRAME_TIME_INVALID
    assert stream.acknowledged == {TRACK: GOOD_FRAMES}
