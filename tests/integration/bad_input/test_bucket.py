"""Buckets that refuse: recording goes on, watchers hear why, and what is mended gets every file."""

import asyncio
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import duration_pb2

from roomtape.v1 import (
    application_pb2,
    error_pb2,
    event_pb2,
    file_pb2,
    media_pb2,
    room_pb2,
    segment_pb2,
    storage_pb2,
    task_pb2,
)
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import FRAME_NS, Samples, fetch, noise_frame, samples_in
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.witness import START_NS, offer_of
from tests.integration.bad_input.world import World
from tests.support.stores import weed_settings
from tests.support.weed import WeedServer

pytestmark = pytest.mark.asyncio(loop_scope="package")

APP = "bucket"
BURST = 150
"""Frames: two whole segments of a second, and half of the next."""

TROUBLES = {
    "wrong-secret": ({"secret_access_key": "not-the-secret"}, "SignatureDoesNotMatch"),
    "unknown-key": ({"access_key_id": "AKNOBODY000000000000"}, "InvalidAccessKeyId"),
    "no-such-bucket": ({"bucket": "nobodys-bucket"}, "NoSuchBucket"),
    "nobody-there": ({}, "ConnectionFailed"),
}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port


async def configure(world: World, app_id: str, storage: storage_pb2.StorageSettings) -> None:
    """Creates the application with the store, or mends its store."""
    application = application_pb2.Application(app_id=app_id, storage=storage)
    known = await world.client.applications.ListApplications(application_pb2.ListApplicationsRequest())
    if app_id in {each.app_id for each in known.applications}:
        await world.client.applications.UpdateApplication(
            application_pb2.UpdateApplicationRequest(application=application)
        )
    else:
        await world.client.applications.CreateApplication(
            application_pb2.CreateApplicationRequest(application=application)
        )


async def until_told(world: World, app_id: str, error_code: str) -> None:
    """Waits until watchers know that the store refuses, and why."""
    delayed = warned = False
    wanted = event_pb2.EventFilter(
        types=[event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED, event_pb2.EVENT_TYPE_WARNING]
    )
    watch = world.client.watch_events(app_id, origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with asyncio.timeout(30), watch:
        async for event in watch:
            if event.type == event_pb2.EVENT_TYPE_WARNING:
                assert event.warning.reason == error_pb2.ERROR_REASON_STORE_UNAVAILABLE
                assert event.warning.message
                warned = True
            else:
                assert event.segment.error_code == error_code, event
                assert event.segment.message
                assert event.segment.segment.state != segment_pb2.SEGMENT_STATE_UPLOADED
                delayed = True
            if delayed and warned:
                return


@tells("STORE_UNAVAILABLE")
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_recording_goes_on_while_a_bucket_refuses(
    world: World, weed: WeedServer, closed_port: int, trouble: str
) -> None:
    changes, error_code = TROUBLES[trouble]
    if trouble == "nobody-there":
        changes = {"endpoint": f"http://127.0.0.1:{closed_port}"}
    client, app_id = world.client, f"{APP}-{trouble}"
    await configure(world, app_id, weed_settings(weed, **changes))
    checked = await client.applications.CheckStorage(application_pb2.CheckStorageRequest(app_id=app_id))
    assert not checked.ok
    assert [(each.name, each.error_code) for each in checked.steps] == [("put", error_code)]
    task_id = await start(world, app_id)
    randomness = np.random.default_rng(len(trouble))
    sound = [noise_frame(randomness) for _ in range(2 * BURST)]
    async with RawPublish(world.channel) as stream:
        await stream.open(opening("r", "ada", [offer_of(media_pb2.CODEC_PCM_S16LE)], app_id=app_id))
        await stream.send(batch(frames(sound[:BURST]), sent_ns=START_NS))
        await until_told(world, app_id, error_code)
        await stream.send(batch(frames(sound[BURST:], BURST + 1), sent_ns=START_NS + BURST * FRAME_NS))
        await stream.close()
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=app_id, task_id=task_id))
    described = await client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id=app_id, task_id=task_id)
    )
    assert segment_pb2.SEGMENT_STATE_UPLOADED not in {each.state for each in described.segments}
    await configure(world, app_id, weed_settings(weed))
    async with asyncio.timeout(30):
        described = await client.wait_until_complete(app_id, task_id)
    assert {each.state for each in described.segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
    parts = [await play(world, app_id, each) for each in described.segments]
    np.testing.assert_array_equal(np.concatenate(parts), np.frombuffer(b"".join(sound), "<i2"))


async def start(world: World, app_id: str) -> str:
    """A room on a MEDIA clock, recorded in segments of a second; the task's id."""
    clock = room_pb2.ROOM_CLOCK_MEDIA
    await world.client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=app_id, room_id="r", clock=clock))
    output = task_pb2.OutputSettings(
        single_containers=[media_pb2.CONTAINER_WAV], segment_duration=duration_pb2.Duration(seconds=1)
    )
    started = await world.client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id=app_id, room_id="r", mode=task_pb2.RECORD_MODE_SINGLE, output=output
        )
    )
    return started.task.task_id


async def play(world: World, app_id: str, segment: segment_pb2.Segment) -> Samples:
    """The samples of a file as its URL plays it."""
    playback = await world.client.files.CreatePlaybackUrl(
        file_pb2.CreatePlaybackUrlRequest(app_id=app_id, file_id=segment.file_id)
    )
    return samples_in(await asyncio.to_thread(fetch, playback.url))
