"""A spool that fills up with what is recorded: a warning, then no new task, then a pause that costs no sample."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from roomtape.client import Client, Publisher, ResourceExhausted
from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, task_pb2
from tests.integration.bad_input.cases import covers, tells
from tests.integration.bad_input.content import FRAME_SAMPLES, noise_frame, samples_of
from tests.integration.bad_input.witness import START_NS, TRACK, offer_of, path_of, record
from tests.support.server import running_server
from tests.support.waiting import eventually

QUOTA_BYTES = 1 << 20
WAV, MEDIA = media_pb2.CONTAINER_WAV, room_pb2.ROOM_CLOCK_MEDIA
FRAME_BYTES = 2 * FRAME_SAMPLES


@covers("RecordingService.StartRecord", "SPOOL_FULL")
@tells("SPOOL_NEARLY_FULL")
async def test_a_spool_that_fills_up_is_told_then_refuses_and_then_pauses(tmp_path: Path) -> None:
    randomness = np.random.default_rng(3)
    frames: list[bytes] = []

    async def publish(publisher: Publisher, until_bytes: float) -> None:
        while len(frames) * FRAME_BYTES < until_bytes:
            frames.append(noise_frame(randomness))
            await publisher.publish(TRACK, frames[-1])

    async with (
        running_server(tmp_path / "data", spool_quota_bytes=QUOTA_BYTES) as server,
        Client(server.target) as client,
    ):
        await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id="other"))
        task_id = await record(client, "room", MEDIA, [WAV])
        offer = offer_of(media_pb2.CODEC_PCM_S16LE)
        async with client.publisher("app", "room", "user", [offer], start_time_ns=START_NS) as publisher:
            await publish(publisher, 0.8 * QUOTA_BYTES)
            warning = (await first(client, event_pb2.EVENT_TYPE_WARNING)).warning
            assert warning.reason == error_pb2.ERROR_REASON_SPOOL_NEARLY_FULL
            await publish(publisher, 0.95 * QUOTA_BYTES)

            async def refusal() -> ResourceExhausted | None:
                request = task_pb2.StartRecordRequest(
                    app_id="app", room_id="other", mode=task_pb2.RECORD_MODE_SINGLE
                )
                try:
                    started = await client.recording.StartRecord(request)
                except ResourceExhausted as refused:
                    return refused
                await client.recording.StopRecord(
                    task_pb2.StopRecordRequest(app_id="app", task_id=started.task.task_id)
                )
                return None

            async def is_refused() -> bool:
                return await refusal() is not None

            await eventually(is_refused, "no task is started any more")
            refused = await refusal()
            assert refused is not None
            assert (refused.reason_name, refused.retry_after) == ("SPOOL_FULL", 30)
            # One segment is all that the quota holds: it ends, is stored, and recording goes on in the next.
            await publish(publisher, 1.3 * QUOTA_BYTES)
            interrupted = await first(client, event_pb2.EVENT_TYPE_INTERRUPTED)
            assert interrupted.interrupted.cause == event_pb2.INTERRUPTION_CAUSE_SPOOL_FULL
            await publish(publisher, 1.6 * QUOTA_BYTES)
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        async with asyncio.timeout(30):
            described = await client.wait_until_complete("app", task_id)
        segments = sorted(described.segments, key=lambda each: each.segment_id)
        joined = np.concatenate([samples_of(path_of(each)) for each in segments])
        np.testing.assert_array_equal(joined, np.frombuffer(b"".join(frames), "<i2"))
        assert [each.interrupted for each in segments] == [True, False]


async def first(client: Client, kind: event_pb2.EventType.ValueType) -> event_pb2.Event:
    """The first event of a type, once it is there."""
    wanted = event_pb2.EventFilter(types=[kind])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(20), watch:
        async for event in watch:
            return event
    pytest.fail("the watch ended")
