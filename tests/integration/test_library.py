"""Files that are deleted, given up, or whose time is over: the row, the event, the object, the spool file."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import grpc
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, file_pb2, segment_pb2, storage_pb2
from roomtape_service.database import UnitOfWork, applications
from roomtape_service.database.segments import set_state
from roomtape_service.database.tables import manifests, removals
from roomtape_service.library.abandoning import Abandoning
from roomtape_service.library.removing import NOW_SECONDS
from roomtape_service.operations import Operations
from roomtape_service.storage.store import ObjectMissing, Store
from tests.client.proxy import tcp_proxy
from tests.support.databases import APP
from tests.support.library import OTHER, TASK, Library, open_library, refusal
from tests.support.rclone import RcloneServer
from tests.support.spooled import SpooledFile, events_of_type
from tests.support.stores import disk_settings, rclone_settings, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

DELETED = segment_pb2.SEGMENT_STATE_DELETED
EXPIRED = segment_pb2.SEGMENT_STATE_EXPIRED
ABANDONED = segment_pb2.SEGMENT_STATE_ABANDONED
DAY_SECONDS = 86_400
SECOND_NS = 1_000_000_000


@pytest.fixture
async def library(tmp_path: Path, database_url: str, rclone: RcloneServer) -> AsyncIterator[Library]:
    async with open_library(tmp_path, database_url, authority=rclone.authority) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["disk", "weed", "rclone"])
async def test_a_deleted_file_is_gone_when_the_call_returns(
    library: Library, weed: WeedServer, rclone: RcloneServer, kind: str
) -> None:
    if kind != "disk":
        await library.set_storage(weed_settings(weed) if kind == "weed" else rclone_settings(rclone))
    file, other = await library.add("anna", "ben")
    store = await _store(library, file)
    url = await library.url(file)
    deleted = await library.delete(file)
    assert (deleted.state, deleted.url, deleted.object_key) == (DELETED, "", file.object_key)
    with pytest.raises(ObjectMissing):
        await store.head(file.object_key)
    assert (await store.head(other.object_key)).size_bytes == len(other.data)
    assert (await library.get(file)).state == DELETED
    assert [each.file_id for each in await library.list()] == [other.file_id]
    assert await _waiting(library) == []
    request = file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=file.file_id)
    refused = await refusal(library.stub.CreatePlaybackUrl(request))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")
    if kind == "disk":
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 404


async def test_files_of_the_second_store_are_deleted_there(library: Library, weed: WeedServer) -> None:
    await library.set_storage(weed_settings(weed))
    (file,) = await library.add("anna")
    store = await _store(library, file)
    await library.set_storage(_beside(weed))
    async with aiohttp.ClientSession() as session, session.get(await library.url(file)) as answer:
        assert await answer.read() == file.data
    await library.delete(file)
    assert await _waiting(library) == []
    with pytest.raises(ObjectMissing):
        await store.head(file.object_key)


async def test_a_deletion_is_told_once_and_repeated_without_effect(library: Library) -> None:
    (file,) = await library.add("anna")
    wanted = await _wanted(library)
    first = await library.delete(file, "once")
    assert await library.delete(file, "once") == first
    assert (await library.delete(file)).state == DELETED
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_DELETED)
    assert (event.task_id, event.task_sequence, event.segment.segment) == ("", 0, first)
    assert await _wanted(library) == wanted + 1
    reused = file_pb2.DeleteFileRequest(app_id=APP, file_id="another", request_id="once")
    assert (await refusal(library.stub.DeleteFile(reused)))[1] == "REQUEST_ID_REUSED"


async def test_what_is_not_in_a_store_is_not_deleted(library: Library) -> None:
    (spooled,) = await library.spool.add(APP, TASK)
    request = file_pb2.DeleteFileRequest(app_id=APP, file_id=spooled.file_id)
    refused = await refusal(library.stub.DeleteFile(request))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")
    (foreign,) = await library.add("anna", app_id=OTHER, task_id="2000")
    for file_id in ("nothing", foreign.file_id):
        request = file_pb2.DeleteFileRequest(app_id=APP, file_id=file_id)
        refused = await refusal(library.stub.DeleteFile(request))
        assert refused == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    assert (await library.get(foreign)).state == segment_pb2.SEGMENT_STATE_UPLOADED


async def test_a_store_that_is_down_loses_its_objects_when_it_is_back(
    library: Library, weed: WeedServer
) -> None:
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        await library.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        files = await library.add("anna", "ben", "carl")
        store = await _store(library, files[0])
        await proxy.stop()
        for file in files:
            assert (await library.delete(file)).state == DELETED
        assert len(await _waiting(library)) == 3
        # The calls are not at it any more.
        library.clock.advance(NOW_SECONDS)
        async with library.removing():
            await eventually(lambda: _is_tried(library), "the store was tried")
            await proxy.start()
            library.removals.retry_now()
            await eventually(lambda: _none_waiting(library), "all objects are removed")
        for file in files:
            with pytest.raises(ObjectMissing):
                await store.head(file.object_key)


async def test_who_deletes_files_in_a_store_that_was_left_is_told_that_they_stay(
    library: Library, weed: WeedServer
) -> None:
    await library.set_storage(weed_settings(weed))
    files = await library.add("anna", "ben")
    store = await _store(library, files[0])
    await library.set_storage(disk_settings(APP))
    for file in files:
        await library.delete(file)
    library.clock.advance(NOW_SECONDS)
    warning = event_pb2.EVENT_TYPE_WARNING

    async def is_told() -> bool:
        return bool(await events_of_type(library.database, warning))

    async with library.removing():
        await eventually(is_told, "the application is told")
        library.clock.advance(600)
        library.removals.retry_now()
        await eventually(lambda: _has_tried_again(library), "it was tried again")
        (event,) = await events_of_type(library.database, warning)
        assert store.identity in event.warning.message
        await library.set_storage(weed_settings(weed))
        library.removals.retry_now()
        await eventually(lambda: _none_waiting(library), "they are removed")


async def test_the_disk_plays_nothing_that_was_deleted_though_it_is_still_there(
    library: Library,
) -> None:
    (file,) = await library.add("anna")
    url = await library.url(file)
    path = library.stores.disk(APP).path(file.object_key)
    await library.delete(file)
    path.parent.mkdir(parents=True)
    path.write_bytes(file.data)
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 404


async def test_the_key_of_a_deleted_file_stays_its_own(library: Library) -> None:
    (first,) = await library.add("anna")
    await library.delete(first)
    (second,) = await library.add("anna")
    assert second.object_key != first.object_key
    assert (await library.get(second)).state == segment_pb2.SEGMENT_STATE_UPLOADED


async def test_1500_days_pass_in_milliseconds(library: Library) -> None:
    await library.set_storage(_kept(1500))
    files = await library.add(*(f"user-{n}" for n in range(40)))
    # A change is for files that are uploaded after it.
    await library.set_storage(_kept(0))
    (forever,) = await library.add("forever")
    (spooled,) = await library.spool.add(APP, TASK, user_id="spooled")
    # The media of these is older than their task, which starts now.
    over_ns = library.clock.now_ns() + 1500 * DAY_SECONDS * SECOND_NS
    assert (await library.get(files[0])).expire_time.ToNanoseconds() == over_ns
    assert not (await library.get(forever)).HasField("expire_time")
    library.clock.advance((over_ns - library.clock.now_ns()) / SECOND_NS - 1)
    await library.expiry.tick()
    assert len(await library.list()) == 41
    library.clock.advance(2)
    await library.expiry.tick()
    assert [file.file_id for file in await library.list()] == [forever.file_id]
    assert {(await library.get(file)).state for file in files} == {EXPIRED}
    assert (await library.get(spooled)).state == segment_pb2.SEGMENT_STATE_SPOOLED
    events = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_EXPIRED)
    expired = sorted(event.segment.segment.file_id for event in events)
    assert expired == sorted(file.file_id for file in files)
    assert {event.task_id for event in events} == {""}
    async with library.removing():
        await eventually(lambda: _none_waiting(library), "all objects are removed")
    folder = library.stores.disk(APP).path("x").parent
    assert [path.read_bytes() for path in folder.rglob("*.mp3")] == [forever.data]


@pytest.mark.parametrize("kind", ["disk", "weed"])
async def test_a_file_that_its_store_does_not_take_is_given_up(
    library: Library, weed: WeedServer, kind: str
) -> None:
    settings = disk_settings("full") if kind == "disk" else weed_settings(weed, bucket="no-such-bucket")
    if kind == "disk":
        root = library.stores.disk("full").path("x").parent.parent
        root.mkdir(parents=True, exist_ok=True)
        (root / "full").write_text("in the way")
    await library.set_storage(settings)
    (file,) = await library.spool.add(APP, TASK)
    async with library.uploading():
        await eventually(lambda: _is_delayed(library, file), "the store refused")
        wanted = await _wanted(library)
        given_up = await library.abandon(file, "once")
        assert await library.abandon(file, "once") == given_up
        assert (await library.abandon(file)).state == ABANDONED
    assert given_up.state == ABANDONED
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_ABANDONED)
    assert (event.task_id, event.segment.segment) == (TASK, given_up)
    assert await _wanted(library) == wanted + 1
    aside = list((library.spool_dir / "aside").iterdir())
    assert [path.read_bytes() for path in aside] == [file.data]
    assert not file.path.exists()
    # With its last segment the folder goes.
    assert not file.path.parent.exists()
    assert (await library.spool.row(file)).spool_path is None


async def test_an_attempt_that_hangs_is_ended_and_leaves_nothing(library: Library, weed: WeedServer) -> None:
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        await library.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        (warm,) = await library.add("anna")
        proxy.freeze()
        (file,) = await library.spool.add(APP, TASK, user_id="ben")
        async with library.uploading():
            await eventually(lambda: _is_uploading(library, file), "it is on its way")
            await library.abandon(file)
        assert (await library.get(file)).state == ABANDONED
        assert await _waiting(library) == [file.object_key]
        store = await _store(library, warm)
        library.clock.advance(61)
        async with library.removing():
            await eventually(lambda: _none_waiting(library), "what may have arrived is removed")
        with pytest.raises(ObjectMissing):
            await store.head(file.object_key)


@pytest.mark.parametrize("wins", ["upload", "operator"])
async def test_a_file_is_either_uploaded_or_given_up(library: Library, wins: str) -> None:
    (file,) = await library.spool.add(APP, TASK)
    request = file_pb2.AbandonFileRequest(app_id=APP, file_id=file.file_id)
    if wins == "upload":
        async with library.uploading():
            await eventually(lambda: library.spool.is_uploaded(file), "it is uploaded")
        refused = await refusal(library.stub.AbandonFile(request))
        assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_ABANDONABLE")
        return
    await library.stub.AbandonFile(request)
    async with library.uploading():
        (after,) = await library.spool.add(APP, TASK)
        library.wake_uploads()
        await eventually(lambda: library.spool.is_uploaded(after), "the next one is uploaded")
    assert (await library.get(file)).state == ABANDONED
    with pytest.raises(ObjectMissing):
        await library.stores.disk(APP).head(file.object_key)


async def test_a_node_that_died_while_it_gave_up_is_finished_for(library: Library) -> None:
    (file,) = await library.spool.add(APP, TASK)
    await _give_up(library, file)
    await Abandoning(library.database, library.spool_dir, Operations(), library.stop_upload).take_up()
    aside = list((library.spool_dir / "aside").iterdir())
    assert [path.read_bytes() for path in aside] == [file.data]
    assert not file.path.parent.exists()


async def _has_tried_again(library: Library) -> bool:
    async def read(connection: AsyncConnection) -> bool:
        return bool(await connection.scalar(sa.select(sa.func.max(removals.c.attempts) > 1)))

    return await library.database.read(read)


def _kept(days: int) -> storage_pb2.StorageSettings:
    settings = disk_settings(APP)
    settings.retention.FromSeconds(days * DAY_SECONDS)
    return settings


def _beside(weed: WeedServer) -> storage_pb2.StorageSettings:
    """The disk, and the bucket as its second store."""
    settings = disk_settings(APP)
    settings.secondary.object_store.CopyFrom(weed_settings(weed).object_store)
    return settings


async def _store(library: Library, file: SpooledFile) -> Store:
    row = await library.spool.row(file)
    application = await library.database.read(lambda rows: applications.get(rows, file.app_id))
    store = library.stores.of_file(application, row.store)
    assert store is not None
    return store


async def _waiting(library: Library) -> Sequence[str]:
    async def read(connection: AsyncConnection) -> Sequence[str]:
        return list(await connection.scalars(sa.select(removals.c.object_key)))

    return await library.database.read(read)


async def _none_waiting(library: Library) -> bool:
    return not await _waiting(library)


async def _is_tried(library: Library) -> bool:
    async def read(connection: AsyncConnection) -> int:
        return await connection.scalar(sa.select(sa.func.max(removals.c.attempts))) or 0

    return await library.database.read(read) > 0


async def _wanted(library: Library) -> int:
    async def read(connection: AsyncConnection) -> int:
        query = sa.select(manifests.c.wanted).where(manifests.c.task_id == TASK)
        return await connection.scalar(query) or 0

    return await library.database.read(read)


async def _is_delayed(library: Library, file: SpooledFile) -> bool:
    return (await library.spool.row(file)).upload_attempts > 0


async def _is_uploading(library: Library, file: SpooledFile) -> bool:
    return (await library.spool.row(file)).state == segment_pb2.SEGMENT_STATE_UPLOADING


async def _give_up(library: Library, file: SpooledFile) -> None:
    """The unit of work, and nothing after it."""

    async def work(uow: UnitOfWork) -> None:
        await set_state(uow.connection, file.file_id, ABANDONED)

    await library.database.write(work)
