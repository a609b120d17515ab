"""Frames that are lost, doubled, swapped and late on their way: counted to the last, and no harm to the files."""

import itertools

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, hear, packets_of, select
from tests.support.server import ServerProcess
from tests.support.stage import OPUS, SECOND, START_NS, Sound, Speaker, Spoken, Stage
from tests.support.troubled import Wire, troubled_network

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
SEEDS = (1, 20261121)
SPURTS = 8
SPURT_SECONDS = 1.2
PAUSE_SECONDS = 0.6
FRAMES = 60
"""Of a spurt."""
_JOIN_NS = 100_000_000


def arrived(wire: Wire) -> list[int]:
    """The frames that came in time."""
    return sorted(set(wire.passed) - wire.late)


def heard_spurts(wire: Wire) -> list[Spoken]:
    """From when to when frames of each spurt came."""
    period_ns = round((SPURT_SECONDS + PAUSE_SECONDS) * SECOND)
    spurts = []
    for number, sequences in itertools.groupby(arrived(wire), lambda each: (each - 1) // FRAMES):
        places = [(each - 1) % FRAMES for each in sequences]
        begin_ns = START_NS + number * period_ns
        spurts.append(
            Spoken(begin_ns + places[0] * OPUS.frame_ns, begin_ns + (places[-1] + 1) * OPUS.frame_ns)
        )
    return spurts


@pytest.mark.parametrize("seed", SEEDS)
async def test_troubles_are_counted_and_heard_nowhere(
    server: ServerProcess, client: Client, seed: int
) -> None:
    ada = Speaker("ada", 600, OPUS, -20)
    ben = Speaker("ben", 1200, Sound(media_pb2.CODEC_PCM_S16LE, rate=16_000), -20)
    async with (
        troubled_network(server.target, total=SPURTS * FRAMES, seed=seed) as (target, wires),
        Client(target) as publishing,
    ):
        stage = Stage(client, f"troubles-{seed}", publishing=publishing)
        await stage.record(task_pb2.RECORD_MODE_SINGLE_AND_MIXED, singles=[MP3, OGG, WAV], mixes=[WAV])
        await stage.join(ada, ben)
        for _ in range(SPURTS):
            await stage.talk(SPURT_SECONDS, ada, ben)
            await stage.talk(PAUSE_SECONDS)
        segments = await stage.end()
    check_files(segments)
    totals = segment_pb2.FrameStatistics()
    for speaker in (ada, ben):
        wire = wires[speaker.user_id]
        assert min(wire.lost, wire.doubled, wire.swapped, len(wire.late)) > 0
        expected = segment_pb2.FrameStatistics(
            recorded=len(arrived(wire)),
            lost=wire.lost,
            duplicated=wire.doubled,
            reordered=wire.swapped,
            rejected=len(wire.late),
        )
        for container in (MP3, WAV):
            files = select(segments, container, speaker.user_id)
            assert sum_of(files) == expected
            assert_heard(
                files,
                {speaker.hertz: (heard_spurts(wire), speaker.dbfs)},
                join_ns=_JOIN_NS,
            )
        for field in ("recorded", "lost", "duplicated", "reordered", "rejected"):
            setattr(totals, field, getattr(totals, field) + getattr(expected, field))
        print(f"{speaker.user_id}: {str(expected)!r}".replace("\\n", " "))
    assert sum_of(select(segments, WAV)) == totals
    ogg = [packet for each in select(segments, OGG, "ada") for packet in packets_of(each)]
    published = [ada.frames[sequence - 1] for sequence in arrived(wires["ada"])]
    assert [packet for packet in ogg if packet in set(published)] == published
    assert not hear(select(segments, WAV, "ada"), ben.hertz)
    assert not hear(select(segments, WAV, "ben"), ada.hertz)


def sum_of(files: list[segment_pb2.Segment]) -> segment_pb2.FrameStatistics:
    total = segment_pb2.FrameStatistics()
    for each in files:
        for field, value in each.statistics.ListFields():
            setattr(total, field.name, getattr(total, field.name) + value)
    return total
