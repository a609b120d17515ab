"""The node is killed while files are joined, deleted, given up and expire: each happens once, and to its end."""

from pathlib import Path

import numpy as np

from roomtape.client import Client, RetrySettings
from roomtape.v1 import application_pb2, event_pb2, file_pb2, media_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from tests.faults.failpoint_file import FailpointFile
from tests.support.audio import noise
from tests.support.hearing import path_of, samples_of
from tests.support.server import ServerProcess
from tests.support.spooled import events_of_type
from tests.support.stage import PCM, Speaker, Stage
from tests.support.waiting import eventually

APP = "app"
UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED
_PART_BYTES = 8 << 20
_SECONDS = 1.5
_PATIENT = RetrySettings(attempts=200, max_seconds=0.5)
_NOWHERE = storage_pb2.ObjectStore(
    vendor=storage_pb2.STORAGE_VENDOR_S3,
    bucket="nowhere",
    region="us-east-1",
    endpoint="http://127.0.0.1:9",
    path_style=True,
    credentials=storage_pb2.StorageCredentials(
        access_key_id="id", secret_access_key=storage_pb2.Secret(value="secret")
    ),
)


async def test_the_library_survives_kills_of_its_node(tmp_path: Path) -> None:
    failpoints = FailpointFile(tmp_path / "failpoints", _PART_BYTES)
    server = ServerProcess(tmp_path / "data", failpoints_file=str(failpoints.path))
    await server.start()
    try:
        async with Client(server.target, retry=_PATIENT) as client:
            short = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore())
            short.retention.FromSeconds(86_400)
            await _create(client, "short", short)
            await _create(client, "nowhere", storage_pb2.StorageSettings(object_store=_NOWHERE))
            files = await (await _play(client, APP)).end()
            expiring = await (await _play(client, "short")).end()
            await _join_and_delete(client, failpoints, files)
            await _abandon(client, failpoints, await _play(client, "nowhere"), server.data_dir)
            failpoints.arm(_kill("commit:library.expiry.Expiry._expire.expire"))
            failpoints.set_clock(2 * 86_400)
            await server.kill()
            await server.start()
            for file in expiring:
                await _until(client, "short", file.file_id, segment_pb2.SEGMENT_STATE_EXPIRED)
            await eventually(lambda: not any(path_of(each).exists() for each in expiring), "they are gone")
    finally:
        await server.stop()
    assert failpoints.killed_at() == {
        "commit:library.joining.Joining.join.work:after",
        "commit:library.joins.Joins._complete.complete",
        "commit:library.deleting.Deleting.delete.work:after",
        "commit:library.removing.Removals._done.forget",
        "commit:library.abandoning.Abandoning.abandon:after",
        "commit:library.expiry.Expiry._expire.expire",
    }
    await _check_events(server.data_dir, deleted=len(files), expired=len(expiring))
    assert not list((server.data_dir / "spool" / ".joined").iterdir())


async def _join_and_delete(
    client: Client, failpoints: FailpointFile, files: list[segment_pb2.Segment]
) -> None:
    failpoints.arm(
        _kill("commit:library.joining.Joining.join.work:after"),
        _kill("commit:library.joins.Joins._complete.complete"),
    )
    request = file_pb2.JoinSegmentsRequest(app_id=APP, recording_id=files[0].recording_id)
    ordered = (await client.files.JoinSegments(request)).file
    made = await _until(client, APP, ordered.file_id, UPLOADED)
    whole = np.concatenate([samples_of(file) for file in files])
    np.testing.assert_array_equal(samples_of(made), whole)
    failpoints.arm(
        _kill("commit:library.deleting.Deleting.delete.work:after"),
        _kill("commit:library.removing.Removals._done.forget"),
    )
    for file in files:
        reply = await client.files.DeleteFile(file_pb2.DeleteFileRequest(app_id=APP, file_id=file.file_id))
        assert reply.file.state == segment_pb2.SEGMENT_STATE_DELETED
    await eventually(lambda: not any(path_of(file).exists() for file in files), "the objects are gone")
    assert path_of(made).exists()


async def _abandon(client: Client, failpoints: FailpointFile, stage: Stage, data_dir: Path) -> None:
    app_id, task_id = stage.app_id, stage.task_id
    await stage.leave(*list(stage.speakers))
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=app_id, task_id=task_id))
    describe = task_pb2.DescribeRecordInfoRequest(app_id=app_id, task_id=task_id)

    async def all_wait() -> bool:
        described = await client.recording.DescribeRecordInfo(describe)
        states = {segment.state for segment in described.segments}
        return bool(states) and states <= {
            segment_pb2.SEGMENT_STATE_SPOOLED,
            segment_pb2.SEGMENT_STATE_UPLOADING,
        }

    await eventually(all_wait, "all segments wait")
    failpoints.arm(_kill("commit:library.abandoning.Abandoning.abandon:after"))
    segments = (await client.recording.DescribeRecordInfo(describe)).segments
    for segment in segments:
        request = file_pb2.AbandonFileRequest(app_id=app_id, file_id=segment.file_id)
        assert (await client.files.AbandonFile(request)).file.state == segment_pb2.SEGMENT_STATE_ABANDONED
    described = await client.wait_until_complete(app_id, task_id)
    assert described.task.state == task_pb2.TASK_STATE_COMPLETED
    aside = data_dir / "spool" / "aside"
    await eventually(
        lambda: (
            sorted(path.stat().st_size for path in aside.iterdir())
            == sorted(segment.size_bytes for segment in segments)
        ),
        "the media is kept aside",
    )


async def _check_events(data_dir: Path, *, deleted: int, expired: int) -> None:
    """Each happened once, whatever was killed."""
    database = Database(f"sqlite:///{data_dir}/roomtape.db", SystemClock())
    await database.open()
    try:
        for event_type, count in (
            (event_pb2.EVENT_TYPE_SEGMENTS_JOINED, 1),
            (event_pb2.EVENT_TYPE_SEGMENT_DELETED, deleted),
            (event_pb2.EVENT_TYPE_SEGMENT_EXPIRED, expired),
        ):
            events = await events_of_type(database, event_type)
            assert len(events) == count, event_type
    finally:
        await database.aclose()


def _kill(name: str) -> dict[str, object]:
    return {"name": name, "action": "kill"}


async def _create(client: Client, app_id: str, storage: storage_pb2.StorageSettings) -> None:
    application = application_pb2.Application(app_id=app_id, storage=storage)
    await client.applications.CreateApplication(
        application_pb2.CreateApplicationRequest(application=application)
    )


async def _play(client: Client, app_id: str) -> Stage:
    """Two segments of a user."""
    stage = Stage(client, f"room-{app_id}", app_id=app_id)
    await stage.record(singles=[media_pb2.CONTAINER_WAV], segment_seconds=1)
    await stage.join(Speaker("ada", 0, PCM))
    await stage.play(_SECONDS, {"ada": noise(_SECONDS)})
    return stage


async def _until(
    client: Client, app_id: str, file_id: str, state: segment_pb2.SegmentState.ValueType
) -> segment_pb2.Segment:
    request = file_pb2.GetFileRequest(app_id=app_id, file_id=file_id)
    found: list[segment_pb2.Segment] = []

    async def has_it() -> bool:
        found[:] = [(await client.files.GetFile(request)).file]
        return found[0].state == state

    await eventually(has_it, f"the file is {segment_pb2.SegmentState.Name(state)}")
    return found[0]
