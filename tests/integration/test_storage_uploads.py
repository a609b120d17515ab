"""Segments reach their stores whatever happens on the way, and nobody is left in the dark."""

import fcntl
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from roomtape.v1 import error_pb2, event_pb2, media_pb2, segment_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import UnitOfWork, applications, lanes, manifests
from roomtape_service.database.segments import set_state
from roomtape_service.database.uploads import begin_upload
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.attempt import Attempts
from roomtape_service.storage.lane import Way
from roomtape_service.storage.multipart import Multiparts
from roomtape_service.storage.notices import GivenUp
from tests.client.proxy import tcp_proxy
from tests.support.databases import APP
from tests.support.rclone import RcloneServer
from tests.support.spooled import events_of_type
from tests.support.stores import disk_settings, rclone_settings, weed_settings
from tests.support.uploading import OTHER, OTHER_TASK, TASK, Bench
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

UPLOADED = event_pb2.EVENT_TYPE_SEGMENT_UPLOADED
DELAYED = event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED
WARNING = event_pb2.EVENT_TYPE_WARNING
LARGE_BYTES = 12 << 20


async def test_segments_reach_the_disk(bench: Bench, tmp_path: Path) -> None:
    containers = (media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_WAV)
    files = await bench.spool.add(APP, TASK, containers=containers)
    called: list[tuple[str, str, int]] = []

    async def hook(unit: UnitOfWork, app_id: str, task_id: str) -> None:
        called.append((app_id, task_id, unit.now_ns))

    async with bench.uploads(hook) as uploads:
        await eventually(lambda: bench.spool.is_uploaded(*files), "both files are uploaded")
        await eventually(lambda: not uploads.statistics().running, "nothing runs")
        assert uploads.statistics().uploaded_files == 2
        assert uploads.statistics().uploaded_bytes == sum(len(file.data) for file in files)
    for file in files:
        assert await bench.stored(file) == file.data
        assert (tmp_path / "files" / APP / file.object_key).read_bytes() == file.data
    told = await events_of_type(bench.database, UPLOADED)
    assert {event.segment.segment.file_id for event in told} == {file.file_id for file in files}
    for event in told:
        segment = event.segment.segment
        assert (event.app_id, event.task_id, event.room_id) == (APP, TASK, segment.room_id)
        assert segment.state == segment_pb2.SEGMENT_STATE_UPLOADED
        assert segment.url == (tmp_path / "files" / APP / segment.object_key).as_uri()
        assert segment.sha256
    assert [call[:2] for call in called] == [(APP, TASK), (APP, TASK)]
    # Nothing is left of the generation: its worker is gone.
    assert not bench.spool.folder.exists()


async def test_a_living_workers_folder_stays(bench: Bench) -> None:
    files = await bench.spool.add(APP, TASK)
    with (bench.spool.folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with bench.uploads():
            await eventually(lambda: bench.spool.is_uploaded(*files), "the file is uploaded")
        assert [path.name for path in bench.spool.folder.iterdir()] == ["lock"]


async def test_what_is_spooled_later_goes_when_woken(bench: Bench) -> None:
    async with bench.uploads() as uploads:
        for _ in range(3):
            files = await bench.spool.add(APP, TASK)
            uploads.wake()
            await eventually(partial(bench.spool.is_uploaded, *files), "the file is uploaded")


async def test_a_store_that_is_down_loses_nothing(bench: Bench, weed: WeedServer) -> None:
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        await proxy.stop()
        files = [*await bench.spool.add(APP, TASK, size_bytes=LARGE_BYTES)]
        for _ in range(20):
            files += await bench.spool.add(APP, TASK)
        async with bench.uploads() as uploads:

            async def everybody_knows() -> bool:
                return len(await events_of_type(bench.database, DELAYED)) == len(files)

            await eventually(everybody_knows, "every file's watchers hear of the delay")
            assert uploads.statistics().troubles == {APP: "ConnectionFailed"}
            assert all(file.path.read_bytes() == file.data for file in files)
            await proxy.start()
            await uploads.retry_now(APP)
            await eventually(lambda: bench.spool.is_uploaded(*files), "all files are uploaded")
            assert uploads.statistics().troubles == {}
    for file in files:
        assert await bench.codes(file) == ["ConnectionFailed"]
    told = await events_of_type(bench.database, UPLOADED)
    assert len(told) == len(files)
    assert all(event.segment.segment.url.startswith("s3://") for event in told)
    (warning,) = await events_of_type(bench.database, WARNING)
    assert warning.warning.reason == error_pb2.ERROR_REASON_STORE_UNAVAILABLE
    assert not bench.spool.folder.exists()


async def test_a_bucket_that_refuses_waits_for_its_owner(bench: Bench, rclone: RcloneServer) -> None:
    await bench.set_storage(rclone_settings(rclone, bucket="no-such-bucket"))
    (file,) = await bench.spool.add(APP, TASK)
    async with bench.uploads() as uploads:

        async def is_known() -> bool:
            return bool(await bench.codes(file))

        await eventually(is_known, "the file's watchers hear of the bucket")
        (event,) = await events_of_type(bench.database, DELAYED)
        assert event.segment.error_code == "NoSuchBucket"
        assert "no-such-bucket" in event.segment.message
        assert event.segment.segment.state == segment_pb2.SEGMENT_STATE_UPLOADING
        row = await bench.spool.row(file)
        assert row.next_attempt_ns is not None
        # It takes somebody's hand, so it is not tried every second.
        assert row.next_attempt_ns - SystemClock().now_ns() > 25e9
        await bench.set_storage(rclone_settings(rclone))
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
    assert await bench.stored(file) == file.data
    assert "no-such-bucket" not in (await bench.spool.row(file)).store


async def test_a_unit_that_fails_uploads_again(bench: Bench) -> None:
    (file,) = await bench.spool.add(APP, TASK)
    calls = 0

    async def hook(unit: UnitOfWork, app_id: str, task_id: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the hook has a bug")

    async with bench.uploads(hook):
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
    assert await bench.codes(file) == ["Internal"]
    (event,) = await events_of_type(bench.database, UPLOADED)
    assert event.segment.segment.file_id == file.file_id
    assert await bench.stored(file) == file.data


async def test_a_file_that_is_gone_stops_no_other(bench: Bench) -> None:
    (gone,) = await bench.spool.add(APP, TASK)
    (damaged,) = await bench.spool.add(APP, TASK)
    others = [file for _ in range(3) for file in await bench.spool.add(APP, TASK)]
    gone.path.unlink()
    damaged.path.write_bytes(b"not what was recorded")
    async with bench.uploads() as uploads:
        await eventually(lambda: bench.spool.is_uploaded(*others), "the others are uploaded")

        async def is_known() -> bool:
            return await bench.codes(gone) != [] and await bench.codes(damaged) != []

        await eventually(is_known, "watchers hear of the loss")
        assert uploads.statistics().troubles == {}
    assert await bench.codes(gone) == ["SourceMissing"]
    assert await bench.codes(damaged) == ["SourceDiffers"]
    assert damaged.path.exists()


async def test_a_crash_before_the_file_is_removed(bench: Bench) -> None:
    (file,) = await bench.spool.add(APP, TASK)

    def fail(path: Path, *, is_whole_segment: bool) -> None:
        raise OSError("the process ended here")

    async with bench.uploads(remove=fail):

        async def is_stored() -> bool:
            return (await bench.spool.row(file)).state == segment_pb2.SEGMENT_STATE_UPLOADED

        await eventually(is_stored, "the file is uploaded")
    assert file.path.exists()
    async with bench.uploads():
        await eventually(lambda: bench.spool.is_uploaded(file), "the spool file goes at the next start")
    assert not file.path.exists()
    assert len(await events_of_type(bench.database, UPLOADED)) == 1


async def test_closing_in_the_middle_loses_nothing(bench: Bench, weed: WeedServer) -> None:
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        (file,) = await bench.spool.add(APP, TASK, size_bytes=LARGE_BYTES)
        async with bench.uploads():
            await eventually(lambda: proxy.connections > 0, "the upload has begun")
            proxy.freeze()
        assert file.path.exists()
        async with bench.uploads():
            await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        assert await bench.stored(file) == file.data


async def test_a_store_that_hangs_holds_up_no_other_tenant(bench: Bench, weed: WeedServer) -> None:
    # The system takes connections for it, and nobody ever reads or writes.
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{port}"))
    await bench.set_storage(weed_settings(weed), OTHER)
    stuck = [file for _ in range(30) for file in await bench.spool.add(APP, TASK)]
    try:
        async with bench.uploads() as uploads:
            for _ in range(5):
                files = await bench.spool.add(OTHER, OTHER_TASK)
                uploads.wake()
                await eventually(partial(bench.spool.is_uploaded, *files), "the other's file is uploaded")

            async def is_known() -> bool:
                return await bench.codes(stuck[-1]) == ["Timeout"]

            await eventually(is_known, "watchers of the last file hear of the store")
            assert uploads.statistics().troubles == {APP: "Timeout"}
    finally:
        silent.close()
    assert all(file.path.exists() for file in stuck)


async def test_one_name_twice_gets_a_number(bench: Bench) -> None:
    (first,) = await bench.spool.add(APP, TASK, user_id="same")
    (second,) = await bench.spool.add(APP, TASK, user_id="same")
    (third,) = await bench.spool.add(APP, TASK, user_id="same")
    assert first.object_key.endswith("_0_audio.mp3")
    assert second.object_key.endswith("_0_audio-2.mp3")
    assert third.object_key.endswith("_0_audio-3.mp3")
    async with bench.uploads():
        await eventually(lambda: bench.spool.is_uploaded(first, second, third), "all are uploaded")
    for file in (first, second, third):
        assert await bench.stored(file) == file.data


async def test_what_is_wrong_with_one_application_keeps_no_other_waiting(bench: Bench) -> None:
    """Nobody knows what: its settings are bytes that are none."""
    (theirs,) = await bench.spool.add(OTHER, OTHER_TASK)

    async def break_settings(unit: UnitOfWork) -> None:
        record = await applications.get(unit.connection, OTHER)
        await applications.change(unit, replace(record, storage=b"\xff"))
        await lanes.fails(unit.connection, OTHER, "disk:other", unit.now_ns)
        await lanes.use_secondary(unit.connection, OTHER)

    await bench.database.write(break_settings)
    async with bench.uploads() as uploads:
        for _ in range(2):
            files = await bench.spool.add(APP, TASK)
            uploads.wake()
            await eventually(partial(bench.spool.is_uploaded, *files), "the other's file is uploaded")
        await bench.set_storage(disk_settings("mended"), OTHER)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(theirs), "its file is uploaded, too")


async def test_a_file_that_was_given_up_before_its_attempt_began_stays_out_of_the_store(bench: Bench) -> None:
    """The attempt was about to start, so that nobody could end it."""
    (file,) = await bench.spool.add(APP, TASK)
    await bench.database.write(lambda unit: begin_upload(unit.connection, file.file_id))
    row = await bench.spool.row(file)
    await bench.database.write(
        lambda unit: set_state(unit.connection, file.file_id, segment_pb2.SEGMENT_STATE_ABANDONED)
    )
    multipart = Multiparts(bench.database, bench.stores.memory)
    attempts = Attempts(bench.database, bench.stores, multipart, manifests.changed, remove_stored)
    way = Way()
    with pytest.raises(GivenUp):
        await attempts.upload(row, way, way.first)
    assert await (await bench.store_of(file)).list("") == []
