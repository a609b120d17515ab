"""A disk that fills up, by others or by segments that no store takes: recording pauses, and loses nothing."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from roomtape.client import Client, ResourceExhausted
from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.content import noise_frame, samples_of
from tests.integration.bad_input.witness import Voice, path_of
from tests.support.server import ServerProcess, running_server
from tests.support.small_disk import MIB, SmallDisk, can_mount, small_disk
from tests.support.waiting import eventually

DISK_BYTES = 48 * MIB
RESERVE_BYTES = 2 * MIB
USER, ROOM = "user", "room"

pytestmark = pytest.mark.timeout(120)


async def start(client: Client, room_id: str = ROOM, *, mixed: bool = True) -> str:
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=room_id))
    mode = task_pb2.RECORD_MODE_SINGLE_AND_MIXED if mixed else task_pb2.RECORD_MODE_SINGLE
    output = task_pb2.OutputSettings(
        single_containers=[media_pb2.CONTAINER_WAV], mixed_containers=[media_pb2.CONTAINER_MP3]
    )
    request = task_pb2.StartRecordRequest(app_id="app", room_id=room_id, mode=mode, output=output)
    return (await client.recording.StartRecord(request)).task.task_id


@asynccontextmanager
async def speaking(client: Client) -> AsyncIterator[Voice]:
    randomness = np.random.default_rng(7)
    voice = Voice(
        client, ROOM, USER, media_pb2.CODEC_PCM_S16LE, lambda: noise_frame(randomness), is_live=True
    )
    try:
        await voice.start()
        yield voice
    finally:
        await voice.aclose()


async def until_silent(voice: Voice) -> None:
    """Waits until nothing is acknowledged although much is published."""
    await eventually(lambda: len(voice.frames) > voice.acknowledged + 75, "acknowledgements stop")


async def events(client: Client, *types: event_pb2.EventType.ValueType) -> list[event_pb2.Event]:
    """All that the application's log has of some types."""
    watch = client.watch_events(
        "app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=event_pb2.EventFilter(types=types)
    )
    found = []
    try:
        async with asyncio.timeout(1), watch:
            async for event in watch:
                found += [event]
    except TimeoutError:
        pass
    return found


async def finish(client: Client, task_id: str) -> Sequence[segment_pb2.Segment]:
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
    async with asyncio.timeout(40):
        described = await client.wait_until_complete("app", task_id)
    return described.segments


def assert_nothing_missing(segments: Sequence[segment_pb2.Segment], frames: Sequence[bytes]) -> None:
    wavs = sorted(
        (each for each in segments if each.container == media_pb2.CONTAINER_WAV), key=lambda s: s.segment_id
    )
    assert [each.segment_id for each in wavs] == list(range(len(wavs)))
    joined = np.concatenate([samples_of(path_of(each)) for each in wavs])
    published = np.frombuffer(b"".join(frames), "<i2")
    np.testing.assert_array_equal(joined[: len(published)], published)
    assert not joined[len(published) :].any()
    mixes = sorted(
        (each for each in segments if each.container == media_pb2.CONTAINER_MP3), key=lambda s: s.segment_id
    )
    for before, after in (*itertools.pairwise(wavs), *itertools.pairwise(mixes)):
        assert before.end_time.ToNanoseconds() == after.start_time.ToNanoseconds()
    of_mix = sum(each.sample_count for each in mixes)
    # It begins and ends on a grid of its own.
    assert abs(of_mix - sum(each.sample_count for each in wavs)) <= 960


async def check_pause(server: ServerProcess, disk: SmallDisk, leave_bytes: int) -> None:
    """The disk is filled but for so much while a room is recorded; then there is room again."""
    async with Client(server.target) as client:
        task_id = await start(client)
        async with speaking(client) as voice:
            disk.fill(leave_bytes)
            await until_silent(voice)
            node = server.node()
            with pytest.raises(ResourceExhausted) as refused:
                await start(client, "another")
            assert refused.value.reason_name == "SPOOL_FULL"
            disk.empty()
            await voice.goes_on()
            assert server.node() == node
            await voice.stop()
        segments = await finish(client, task_id)
        assert_nothing_missing(segments, voice.frames)
        [warning, *_] = [each.warning.reason for each in await events(client, event_pb2.EVENT_TYPE_WARNING)]
        assert warning in (
            error_pb2.ERROR_REASON_SPOOL_FULL,
            error_pb2.ERROR_REASON_SPOOL_NEARLY_FULL,
        )
        interrupted = await events(client, event_pb2.EVENT_TYPE_INTERRUPTED)
        causes = {each.interrupted.cause for each in interrupted}
        assert causes == {event_pb2.INTERRUPTION_CAUSE_SPOOL_FULL}
        assert {each.interrupted for each in segments if each.segment_id == 0} == {True}
        assert await events(client, event_pb2.EVENT_TYPE_GAP) == []


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
async def test_a_disk_that_others_fill_pauses_recording_and_costs_no_sample(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", DISK_BYTES) as disk:
        async with running_server(disk.folder, spool_reserve_bytes=RESERVE_BYTES) as server:
            # A little less than the reserve: what is being written can still end, and the database goes on.
            await check_pause(server, disk, RESERVE_BYTES - MIB // 2)


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
async def test_a_disk_that_is_full_to_the_last_byte_costs_no_sample(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", DISK_BYTES) as disk:
        async with (
            running_server(disk.folder, spool_reserve_bytes=RESERVE_BYTES) as server,
            Client(server.target) as client,
        ):
            task_id = await start(client)
            async with speaking(client) as voice:
                disk.fill()
                await until_silent(voice)
                disk.empty()
                await voice.goes_on()
                await voice.stop()
            segments = await finish(client, task_id)
            assert_nothing_missing(segments, voice.frames)
            assert await events(client, event_pb2.EVENT_TYPE_GAP) == []
            reasons = {each.warning.reason for each in await events(client, event_pb2.EVENT_TYPE_WARNING)}
            assert error_pb2.ERROR_REASON_SPOOL_FULL in reasons


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
async def test_a_node_that_dies_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", DISK_BYTES) as disk:
        async with (
            running_server(disk.folder, spool_reserve_bytes=RESERVE_BYTES) as server,
            Client(server.target) as client,
        ):
            task_id = await start(client)
            async with speaking(client) as voice:
                disk.fill()
                await until_silent(voice)
                node = server.node()
                assert node is not None
                node.kill()
                await eventually(lambda: server.node() not in (None, node), "another node is started")
                # It dies once more, and finds no room once more.
                second = server.node()
                assert second is not None
                second.kill()
                await eventually(lambda: server.node() not in (None, second), "a third one is started")
                disk.empty()
                await voice.goes_on()
                await voice.stop()
            segments = await finish(client, task_id)
            assert_nothing_missing(segments, voice.frames)
            assert not list((server.data_dir / "spool").glob("aside/*"))
