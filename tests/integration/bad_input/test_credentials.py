"""Credentials that expire in the middle: recording goes on, and new ones get every file."""

import asyncio

import numpy as np
import pytest
from google.protobuf import timestamp_pb2

from roomtape.v1 import application_pb2, error_pb2, event_pb2, media_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.clock import SystemClock
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import FRAME_NS, noise_frame
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.test_bucket import BURST, configure, play, start
from tests.integration.bad_input.witness import START_NS, offer_of
from tests.integration.bad_input.world import World
from tests.support.stores import weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

pytestmark = pytest.mark.asyncio(loop_scope="package")

APP = "expiring"


def _expiring(weed: WeedServer) -> storage_pb2.StorageSettings:
    settings = weed_settings(weed)
    credentials = settings.object_store.credentials
    credentials.session_token.value = "of-a-moment"
    expire_time = timestamp_pb2.Timestamp()
    expire_time.FromNanoseconds(SystemClock().now_ns() + 1_000_000_000)
    credentials.expire_time.CopyFrom(expire_time)
    return settings


@tells("CREDENTIALS_EXPIRING")
async def test_files_wait_for_new_credentials(world: World, weed: WeedServer) -> None:
    client = world.client
    await configure(world, APP, storage_pb2.StorageSettings())
    await configure(world, APP, _expiring(weed))

    async def have_expired() -> bool:
        checked = await client.applications.CheckStorage(application_pb2.CheckStorageRequest(app_id=APP))
        return [step.error_code for step in checked.steps] == ["CredentialsExpired"]

    await eventually(have_expired, "the credentials have expired")
    wanted = event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_WARNING])
    watch = client.watch_events(APP, origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(10), watch:
        async for event in watch:
            assert event.warning.reason == error_pb2.ERROR_REASON_CREDENTIALS_EXPIRING
            break
    task_id = await start(world, APP)
    randomness = np.random.default_rng(1)
    sound = [noise_frame(randomness) for _ in range(BURST)]
    async with RawPublish(world.channel) as stream:
        await stream.open(opening("r", "ada", [offer_of(media_pb2.CODEC_PCM_S16LE)], app_id=APP))
        await stream.send(batch(frames(sound), sent_ns=START_NS + BURST * FRAME_NS))
        await stream.close()
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=APP, task_id=task_id))
    delayed = event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED])
    watch = client.watch_events(APP, origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=delayed)
    async with asyncio.timeout(30), watch:
        async for event in watch:
            assert event.segment.error_code == "CredentialsExpired"
            assert "UpdateApplication" in event.segment.message
            break
    await configure(world, APP, weed_settings(weed))
    async with asyncio.timeout(30):
        described = await client.wait_until_complete(APP, task_id)
    assert {each.state for each in described.segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
    parts = [await play(world, APP, each) for each in described.segments]
    np.testing.assert_array_equal(np.concatenate(parts), np.frombuffer(b"".join(sound), "<i2"))
