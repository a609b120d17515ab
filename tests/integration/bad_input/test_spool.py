"""A disk that can't be written: acknowledgements stop, watchers hear of it, and nothing is lost in the end."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import psutil

from roomtape.client import Client
from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import (
    FRAME_SAMPLES,
    noise_frame,
    opus_packets,
    packets_of,
    samples_of,
)
from tests.integration.bad_input.witness import Voice, path_of
from tests.support.server import running_server
from tests.support.waiting import eventually

ROOM = "r"


@contextmanager
def unwritable(process: psutil.Process) -> Iterator[None]:
    """While the block runs, no write of the process reaches a file, as on a full disk."""
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


@tells("SPOOL_UNWRITABLE")
async def test_a_spool_that_can_not_be_written_costs_a_segment_and_no_sample(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        task_id = await start(client)
        async with speaking(client) as voices:
            [worker] = server.workers()
            with unwritable(worker):
                await until_warned(client)
                silent_since = {user_id: voice.acknowledged for user_id, voice in voices.items()}
                published = {user_id: len(voice.frames) for user_id, voice in voices.items()}
                await eventually(
                    lambda: all(len(voices[user_id].frames) > published[user_id] + 50 for user_id in voices),
                    "everybody goes on speaking",
                )
                assert {user_id: voice.acknowledged for user_id, voice in voices.items()} == silent_since
                assert server.workers() == [worker]
            for voice in voices.values():
                await voice.goes_on()
            # And once more, while everybody leaves and the task is stopped.
            with unwritable(worker):
                await asyncio.gather(*(until_unsafe(voice) for voice in voices.values()))
                leaving = [asyncio.create_task(voice.stop()) for voice in voices.values()]
                await until_empty(client)
                request = task_pb2.StopRecordRequest(app_id="app", task_id=task_id)
                await client.recording.StopRecord(request)
                assert not any(task.done() for task in leaving)
            await asyncio.gather(*leaving)
        async with asyncio.timeout(30):
            described = await client.wait_until_complete("app", task_id)
        check(described.segments, {user_id: voice.frames for user_id, voice in voices.items()})
        assert server.workers() == [worker]
        kinds = await kinds_of_events(client, task_id)
        assert event_pb2.EVENT_TYPE_INTERRUPTED in kinds
        assert event_pb2.EVENT_TYPE_GAP not in kinds


async def until_unsafe(voice: Voice) -> None:
    """Waits until what was published for some time is not acknowledged."""
    await eventually(lambda: len(voice.frames) > voice.acknowledged + 100, "acknowledgements stop")


async def until_empty(client: Client) -> None:
    """Waits until all that was published has arrived, and everybody has left."""

    async def is_empty() -> bool:
        request = room_pb2.DescribeRoomRequest(app_id="app", room_id=ROOM)
        return not (await client.rooms.DescribeRoom(request)).room.participants

    await eventually(is_empty, "everybody has left")


async def start(client: Client) -> str:
    """A room on a MEDIA clock, of which everything is recorded; the task's id."""
    clock = room_pb2.ROOM_CLOCK_MEDIA
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=ROOM, clock=clock))
    wav, ogg, mp3 = media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_MP3
    output = task_pb2.OutputSettings(single_containers=[wav, ogg, mp3], mixed_containers=[wav])
    mode = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
    started = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(app_id="app", room_id=ROOM, mode=mode, output=output)
    )
    return started.task.task_id


@asynccontextmanager
async def speaking(client: Client) -> AsyncIterator[dict[str, Voice]]:
    """One who publishes PCM, and one who publishes Opus."""
    randomness = np.random.default_rng(11)
    packets = itertools.cycle(opus_packets(100, 11))
    voices = {
        "pcm": Voice(client, ROOM, "pcm", media_pb2.CODEC_PCM_S16LE, lambda: noise_frame(randomness)),
        "opus": Voice(client, ROOM, "opus", media_pb2.CODEC_OPUS, lambda: next(packets)),
    }
    try:
        # Everybody is there before anybody speaks, so that the mix waits for all.
        await asyncio.gather(*(each.publisher.open() for each in voices.values()))
        await asyncio.gather(*(each.start() for each in voices.values()))
        yield voices
    finally:
        for each in voices.values():
            await each.aclose()


async def until_warned(client: Client) -> None:
    """Waits for the WARNING."""
    wanted = event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_WARNING])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(20), watch:
        async for event in watch:
            assert event.warning.reason == error_pb2.ERROR_REASON_SPOOL_UNWRITABLE
            assert event.warning.recording_id
            assert "spool" in event.warning.message
            return


async def kinds_of_events(client: Client, task_id: str) -> set[int]:
    """The types of all events of a task that is over."""
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(20), watch:
        return {event.type async for event in watch}


def check(segments: Sequence[segment_pb2.Segment], published: Mapping[str, Sequence[bytes]]) -> None:
    """Joined, the files hold exactly what was published."""
    files: dict[tuple[str, int], list[segment_pb2.Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.segment_id):
        assert segment.state == segment_pb2.SEGMENT_STATE_UPLOADED
        files.setdefault((segment.user_id, segment.container), []).append(segment)
    wav, ogg, mp3 = media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_MP3
    assert set(files) == {
        ("pcm", wav),
        ("pcm", mp3),
        *(("opus", each) for each in (wav, ogg, mp3)),
        ("", wav),
    }
    for (user_id, _), parts in files.items():
        assert [each.segment_id for each in parts] == list(range(len(parts)))
        longest = max(map(len, published.values()))
        frames = len(published[user_id]) if user_id else longest
        assert sum(each.sample_count for each in parts) == frames * FRAME_SAMPLES, parts
        if user_id:
            assert sum(each.statistics.recorded for each in parts) == frames, parts
            assert sum(each.statistics.lost + each.statistics.rejected for each in parts) == 0, parts
    joined = np.concatenate([samples_of(path_of(each)) for each in files["pcm", wav]])
    np.testing.assert_array_equal(joined, np.frombuffer(b"".join(published["pcm"]), "<i2"))
    packets = [packet for each in files["opus", ogg] for packet in packets_of(path_of(each))]
    assert packets == published["opus"]
