"""All processes of the service are killed at once: recordings go on in their next segments by themselves."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import duration_pb2

from roomtape.client import Client
from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.content import noise_frame, samples_of
from tests.integration.bad_input.witness import Voice, path_of
from tests.support.server import running_server
from tests.support.waiting import eventually

ROOM, USER = "room", "user"
SEED = 20261121
KILLS = 2

pytestmark = pytest.mark.timeout(180)


async def start(
    client: Client,
    clock: room_pb2.RoomClock.ValueType,
    mode: task_pb2.RecordMode.ValueType,
    segment_seconds: int = 7200,
) -> str:
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=ROOM, clock=clock))
    output = task_pb2.OutputSettings(
        single_containers=[media_pb2.CONTAINER_WAV],
        mixed_containers=[media_pb2.CONTAINER_WAV],
        segment_duration=duration_pb2.Duration(seconds=segment_seconds),
    )
    request = task_pb2.StartRecordRequest(app_id="app", room_id=ROOM, mode=mode, output=output)
    return (await client.recording.StartRecord(request)).task.task_id


async def finish(client: Client, task_id: str) -> Sequence[segment_pb2.Segment]:
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
    async with asyncio.timeout(60):
        described = await client.wait_until_complete("app", task_id)
    assert described.task.state == task_pb2.TASK_STATE_COMPLETED
    return sorted(described.segments, key=lambda each: (each.user_id, each.segment_id))


async def events(client: Client, task_id: str) -> list[event_pb2.Event]:
    """All events of a task that is over."""
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(20):
        found = [event async for event in watch]
    assert [each.task_sequence for each in found] == list(range(1, len(found) + 1))
    return found


def voice_of(client: Client, *, is_live: bool) -> Voice:
    randomness = np.random.default_rng(SEED)
    codec = media_pb2.CODEC_PCM_S16LE
    return Voice(client, ROOM, USER, codec, lambda: noise_frame(randomness), is_live=is_live)


def _has(voice: Voice, frames: int) -> bool:
    return voice.acknowledged >= frames


async def test_kills_of_everything_at_any_moment_cost_no_sample(tmp_path: Path) -> None:
    """Segments are a second long: one is always just begun, or being cut or finished. The last kill is at the end."""
    randomness = random.Random(SEED)
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        task_id = await start(client, room_pb2.ROOM_CLOCK_MEDIA, task_pb2.RECORD_MODE_SINGLE, 1)
        voice = voice_of(client, is_live=False)
        try:
            await voice.start()
            for _ in range(KILLS):
                goal = voice.acknowledged + randomness.randint(20, 90)
                await eventually(partial(_has, voice, goal), "it is recorded")
                await server.kill()
                await server.start()
                await voice.goes_on()
            leaving = asyncio.create_task(voice.stop())
            await asyncio.sleep(randomness.random() * 0.1)
            await server.kill()
            await server.start()
            await leaving
        finally:
            await voice.aclose()
        segments = await finish(client, task_id)
        assert [each.segment_id for each in segments] == list(range(len(segments)))
        joined = np.concatenate([samples_of(path_of(each)) for each in segments])
        np.testing.assert_array_equal(joined, np.frombuffer(b"".join(voice.frames), "<i2"))
        found = await events(client, task_id)
        kinds = Counter(each.type for each in found)
        assert [each.gap for each in found if each.type == event_pb2.EVENT_TYPE_GAP] == []
        assert event_pb2.EVENT_TYPE_SEGMENT_LOST not in kinds
        assert kinds[event_pb2.EVENT_TYPE_SEGMENT_UPLOADED] == len(segments)
        told = Counter(
            each.interrupted.segment_id for each in found if each.type == event_pb2.EVENT_TYPE_INTERRUPTED
        )
        assert told == Counter(each.segment_id for each in segments if each.interrupted)
        assert not list((server.data_dir / "spool").glob("aside/*"))


async def test_who_never_comes_back_is_told_as_a_gap_once(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        mode = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
        task_id = await start(client, room_pb2.ROOM_CLOCK_ARRIVAL, mode)
        voice = voice_of(client, is_live=True)
        try:
            await voice.start()
            await server.kill()
        finally:
            await voice.aclose()
        await server.start()
        await server.kill()
        await server.start()
        await client.rooms.RemoveParticipant(
            room_pb2.RemoveParticipantRequest(app_id="app", room_id=ROOM, user_id=USER)
        )
        segments = await finish(client, task_id)
        found = await events(client, task_id)
        assert {each.interrupted for each in segments} == {True}
        gaps = [each.gap for each in found if each.type == event_pb2.EVENT_TYPE_GAP]
        ends = {each.recording_id: each.end_time for each in segments}
        assert len(ends) == 2
        assert {each.recording_id: each.start_time for each in gaps} == ends
        assert {(each.user_id, each.reason) for each in gaps} == {(USER, event_pb2.GAP_REASON_INTERRUPTED)}
        assert len(gaps) == 2
        interruptions = [each for each in found if each.type == event_pb2.EVENT_TYPE_INTERRUPTED]
        assert {each.interrupted.recording_id for each in interruptions} == set(ends)
        assert len(interruptions) == 2
