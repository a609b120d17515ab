"""A worker that ends: watchers hear of it, and the recording goes on in its next segment with every sample."""

import asyncio
from pathlib import Path

import numpy as np

from roomtape.client import Client
from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, task_pb2
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import noise_frame, samples_of
from tests.integration.bad_input.witness import Voice, path_of, record
from tests.support.server import running_server


@tells("WORKER_LOST")
async def test_a_lost_worker_is_told_and_costs_a_segment_and_no_sample(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        task_id = await record(client, "r", room_pb2.ROOM_CLOCK_MEDIA, [media_pb2.CONTAINER_WAV])
        randomness = np.random.default_rng(12)
        voice = Voice(client, "r", "ada", media_pb2.CODEC_PCM_S16LE, lambda: noise_frame(randomness))
        try:
            await voice.start()
            [worker] = server.workers()
            worker.kill()
            await until_told(client)
            await voice.goes_on()
            await voice.stop()
        finally:
            await voice.aclose()
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        async with asyncio.timeout(30):
            described = await client.wait_until_complete("app", task_id)
    segments = sorted(described.segments, key=lambda segment: segment.segment_id)
    assert [segment.interrupted for segment in segments] == [True, False]
    joined = np.concatenate([samples_of(path_of(each)) for each in segments])
    np.testing.assert_array_equal(joined, np.frombuffer(b"".join(voice.frames), "<i2"))


async def until_told(client: Client) -> None:
    """Waits for INTERRUPTED and WARNING, which are of one recording."""
    wanted = event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_INTERRUPTED, event_pb2.EVENT_TYPE_WARNING])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(30), watch:
        interrupted, warned = [await anext(watch), await anext(watch)]
    assert interrupted.interrupted.cause == event_pb2.INTERRUPTION_CAUSE_WORKER_LOST
    assert warned.warning.reason == error_pb2.ERROR_REASON_WORKER_LOST
    assert warned.warning.recording_id == interrupted.interrupted.recording_id
    assert warned.warning.message
