"""Crash and acknowledgement: a gRPC publisher loses nothing, whatever is killed."""

import asyncio
import json
import os
import random
import signal
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from roomtape.client import Client
from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.faults.publisher import FRAME_SAMPLES
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

KILLS = int(os.environ.get("CRASH_KILLS", "20"))
SEED = int(os.environ.get("CRASH_SEED", "20261121"))
SECONDS_PER_KILL = 60

pytestmark = pytest.mark.timeout(120 + KILLS * 20)


def acknowledged(folder: Path) -> int:
    try:
        return int((folder / "acknowledged").read_text())
    except FileNotFoundError:
        return 0


async def kill_one(server: ServerProcess, randomness: random.Random) -> str:
    """Kills the node or a worker, as the dice fall; returns which."""
    while True:
        kind = randomness.choice(["node", "worker"])
        node, workers = server.node(), server.workers()
        victim = node if kind == "node" else (randomness.choice(workers) if workers else None)
        if victim is None:
            await asyncio.sleep(0.02)
            continue
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
        return kind


async def test_joined_segments_equal_what_the_publisher_logged(tmp_path: Path) -> None:
    randomness = random.Random(SEED)
    folder = tmp_path / "publisher"
    folder.mkdir()
    async with running_server(tmp_path / "data", workers=2) as server, Client(server.target) as client:
        await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id="room"))
        output = task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_WAV])
        started = await client.recording.StartRecord(
            task_pb2.StartRecordRequest(
                app_id="app", room_id="room", mode=task_pb2.RECORD_MODE_SINGLE, output=output
            )
        )
        task_id = started.task.task_id
        command = [
            "-m",
            "tests.faults.publisher",
            server.target,
            "app",
            "room",
            "user",
            str(folder),
            str(SEED),
        ]
        publisher = await asyncio.create_subprocess_exec(sys.executable, *command)
        try:
            killed: Counter[str] = Counter()
            for _ in range(KILLS):
                goal = acknowledged(folder) + randomness.randint(2, 60)
                await eventually(
                    lambda goal=goal: acknowledged(folder) >= goal,  # type: ignore[misc]
                    f"{goal} frames are acknowledged after {dict(killed)}",
                    timeout_seconds=SECONDS_PER_KILL,
                )
                killed[await kill_one(server, randomness)] += 1
            goal = acknowledged(folder) + 10
            await eventually(lambda: acknowledged(folder) >= goal, "recording goes on after the last kill")
            publisher.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await publisher.wait() == 0
        finally:
            if publisher.returncode is None:
                publisher.kill()
                await publisher.wait()
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        async with asyncio.timeout(60):
            described = await client.wait_until_complete("app", task_id)
        segments = sorted(described.segments, key=lambda segment: segment.segment_id)
        assert [segment.segment_id for segment in segments] == list(range(len(segments)))
        assert {segment.state for segment in segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
        joined = np.concatenate(
            [samples_of(server.data_dir / "files" / "app" / each.object_key) for each in segments]
        )
        published = np.frombuffer((folder / "frames.pcm").read_bytes(), "<i2")
        statistics = json.loads((folder / "statistics.json").read_text())
        print(f"kills {dict(killed)}, {len(segments)} segments, {len(published) / 48000:.1f} s, {statistics}")
        assert statistics["unacknowledged_frames"] == 0
        assert_equal_samples(joined, published)
        await assert_one_dense_log(client, task_id)


def samples_of(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (48000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def assert_equal_samples(
    joined: "np.ndarray[tuple[int], np.dtype[np.int16]]",
    published: "np.ndarray[tuple[int], np.dtype[np.int16]]",
) -> None:
    length = len(published)
    assert len(joined) >= length, f"{len(joined)} samples recorded, {length} published"
    different = np.flatnonzero(joined[:length] != published)
    first = int(different[0]) if len(different) else length
    assert len(different) == 0, (
        f"sample {first} (frame {first // FRAME_SAMPLES + 1}) is the first that differs"
    )
    # The file ends when the publisher left, which is a little after their last frame.
    rest = joined[length:]
    assert not rest.any()
    assert len(rest) < 48000


async def assert_one_dense_log(client: Client, task_id: str) -> None:
    sequences, task_sequences, types = [], [], Counter[int]()
    request_filter = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=request_filter)
    async with asyncio.timeout(30):
        async for event in watch:
            sequences.append(event.sequence)
            task_sequences.append(event.task_sequence)
            types[event.type] += 1
    assert task_sequences == list(range(1, len(task_sequences) + 1))
    assert sequences == sorted(set(sequences))
    assert types[event_pb2.EVENT_TYPE_SEGMENT_COMPLETED] == types[event_pb2.EVENT_TYPE_SEGMENT_STARTED]
    assert types[event_pb2.EVENT_TYPE_SEGMENT_UPLOADED] == types[event_pb2.EVENT_TYPE_SEGMENT_STARTED]
    assert types[event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE] == 1
