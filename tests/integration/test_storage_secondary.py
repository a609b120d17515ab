"""Segments go to a second store while the first stays down, and to the first again when it takes something."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from google.protobuf import duration_pb2

from roomtape.v1 import event_pb2, media_pb2, storage_pb2
from roomtape_service.database import lanes
from roomtape_service.storage.store import ObjectMissing
from roomtape_service.storage.upload import Uploads
from tests.client.proxy import TcpProxy, tcp_proxy
from tests.support.databases import APP
from tests.support.spooled import SpooledFile, events_of_type
from tests.support.stores import BUCKET, disk_settings, weed_settings
from tests.support.uploading import TASK, Bench
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

WAV = (media_pb2.CONTAINER_WAV,)
PART_BYTES = 5 << 20
SECOND = "disk:spare"


@asynccontextmanager
async def _two_stores(
    bench: Bench, weed: WeedServer, *, after_seconds: int = 1, prefix: str = ""
) -> AsyncIterator[TcpProxy]:
    """The first is a bucket behind a proxy, the second a folder."""
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        settings = weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}")
        settings.prefix = prefix
        settings.secondary.CopyFrom(
            storage_pb2.SecondaryStore(
                disk=storage_pb2.DiskStore(folder="spare"),
                prefix="kept/here",
                after=duration_pb2.Duration(seconds=after_seconds),
            )
        )
        await bench.set_storage(settings)
        yield proxy


async def _warnings(bench: Bench) -> list[str]:
    events = await events_of_type(bench.database, event_pb2.EVENT_TYPE_WARNING)
    return [event.warning.message for event in events]


def _has_failed(uploads: Uploads, times: int) -> bool:
    return uploads.statistics().failed_attempts >= times


async def _store(bench: Bench, file: SpooledFile) -> str:
    return (await bench.spool.row(file)).store


async def test_segments_go_to_the_second_store_and_back(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed, prefix="first") as proxy:
        await proxy.stop()
        waiting = [file for _ in range(3) for file in await bench.spool.add(APP, TASK, user_id="same")]
        async with bench.uploads() as uploads:
            await eventually(lambda: bench.spool.is_uploaded(*waiting), "all are uploaded")
            assert uploads.statistics().on_secondary == [APP]
            (later,) = await bench.spool.add(APP, TASK)
            uploads.wake()
            await eventually(lambda: bench.spool.is_uploaded(later), "later ones are uploaded, too")
            for file in (*waiting, later):
                row = await bench.spool.row(file)
                assert row.store == SECOND
                assert row.object_key == file.object_key.replace("first/", "kept/here/")
                assert row.url.startswith("file://")
                assert row.url.endswith(row.object_key)
                assert await bench.stored(file) == file.data
            await proxy.start()
            first = f"s3:127.0.0.1:{proxy.port}:{BUCKET}"
            while uploads.statistics().on_secondary:
                (file,) = await bench.spool.add(APP, TASK)
                uploads.wake()
                await eventually(partial(bench.spool.is_uploaded, file), "it is uploaded")
            assert await _store(bench, file) == first
            assert await bench.stored(file) == file.data
            (file,) = await bench.spool.add(APP, TASK)
            uploads.wake()
            await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
            assert await _store(bench, file) == first
    told = await _warnings(bench)
    assert len(told) == 3
    assert told[0].startswith("Segments are kept on the server")
    assert told[1].startswith(f"Segments go to the secondary store {SECOND} until {first} takes them again.")
    assert told[2].startswith(f"Segments go to {first} again")
    uploaded = await events_of_type(bench.database, event_pb2.EVENT_TYPE_SEGMENT_UPLOADED)
    assert len({event.segment.segment.file_id for event in uploaded}) == len(uploaded)
    assert {event.segment.segment.store for event in uploaded} == {first, SECOND}


async def test_nothing_goes_to_the_second_store_too_early(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed, after_seconds=3600) as proxy:
        await proxy.stop()
        (file,) = await bench.spool.add(APP, TASK)
        async with bench.uploads() as uploads:
            for _ in range(3):
                await uploads.retry_now(APP)
                count = uploads.statistics().failed_attempts
                await eventually(partial(_has_failed, uploads, count + 1), "it is tried")
            assert uploads.statistics().on_secondary == []
            await proxy.start()
            await uploads.retry_now(APP)
            await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
    assert (await _store(bench, file)).startswith("s3:")
    assert len(await _warnings(bench)) == 1


async def test_a_restart_goes_on_with_the_second_store(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed) as proxy:
        await proxy.stop()
        (first,) = await bench.spool.add(APP, TASK)
        async with bench.uploads():
            await eventually(lambda: bench.spool.is_uploaded(first), "it is uploaded")
        (second,) = await bench.spool.add(APP, TASK)
        async with bench.uploads() as uploads:
            await eventually(lambda: bench.spool.is_uploaded(second), "the next is uploaded")
            assert uploads.statistics().on_secondary == [APP]
    assert await _store(bench, second) == SECOND
    told = await _warnings(bench)
    assert sum(text.startswith("Segments go to the secondary") for text in told) == 1


async def test_a_restart_remembers_since_when_the_first_store_fails(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed, after_seconds=2) as proxy:
        await proxy.stop()
        (file,) = await bench.spool.add(APP, TASK)
        async with bench.uploads():
            await eventually(lambda: _is_failing(bench), "it is known that the store fails")
        begun_ns = (await _failing_ns(bench))[APP]
        async with bench.uploads():
            await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
        assert await _failing_ns(bench) == {APP: begun_ns}
    assert await _store(bench, file) == SECOND


async def test_what_was_begun_in_the_first_store_goes(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed) as proxy:
        (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=2 * PART_BYTES + 1)
        first = await bench.store_of(file)
        bench.steps.begin_again("after put_part 1")
        async with bench.uploads(part_bytes=PART_BYTES):
            await eventually(lambda: bench.steps.is_there.is_set(), "a part is in the first store")
        bench.steps.begin_again()
        await proxy.stop()
        async with bench.uploads(part_bytes=PART_BYTES) as uploads:
            await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
            assert await _store(bench, file) == SECOND
            assert await bench.stored(file) == file.data
            assert await bench.multiparts() == [(file.file_id, True)]
            await proxy.start()
            uploads.settings_changed()
            await eventually(lambda: _has_no_multiparts(bench), "the first store aborted it")
        assert await first.list_parts_begun(file.object_key) == []
        assert await first.list(file.object_key) == []


async def test_with_both_down_nothing_is_lost(bench: Bench, weed: WeedServer) -> None:
    async with _two_stores(bench, weed) as proxy:
        await proxy.stop()
        spare = bench.spool.folder.parent.parent / "files" / "spare"
        spare.parent.mkdir(parents=True)
        spare.write_bytes(b"no folder")
        (file,) = await bench.spool.add(APP, TASK)
        async with bench.uploads() as uploads:
            await eventually(lambda: _was_told(bench, file, "ENOTDIR", "EEXIST"), "the second one fails")
            assert file.path.read_bytes() == file.data
            spare.unlink()
            await uploads.retry_now(APP)
            await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
    assert await _store(bench, file) == SECOND
    assert await bench.stored(file) == file.data


async def test_without_its_second_store_an_application_waits_for_the_first(
    bench: Bench, weed: WeedServer
) -> None:
    async with _two_stores(bench, weed) as proxy:
        await proxy.stop()
        (early,) = await bench.spool.add(APP, TASK)
        async with bench.uploads() as uploads:
            await eventually(lambda: bench.spool.is_uploaded(early), "it is uploaded")
            settings = weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}")
            await bench.set_storage(settings)
            (file,) = await bench.spool.add(APP, TASK)
            uploads.settings_changed()
            await eventually(lambda: _was_told(bench, file, "ConnectionFailed"), "it waits")
            assert uploads.statistics().on_secondary == []
            await proxy.start()
            await uploads.retry_now(APP)
            await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
            assert await bench.stored(file) == file.data


async def test_files_in_a_second_bucket_are_played_and_deleted(
    bench: Bench, weed: WeedServer, tmp_path: Path
) -> None:
    """The first store is a folder that can't be made."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "first").write_bytes(b"no folder")
    settings = disk_settings("first")
    settings.secondary.object_store.CopyFrom(weed_settings(weed).object_store)
    settings.secondary.after.seconds = 1
    await bench.set_storage(settings)
    (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=2 * PART_BYTES + 1)
    async with bench.uploads(part_bytes=PART_BYTES):
        await eventually(lambda: bench.spool.is_uploaded(file), "it is uploaded")
    row = await bench.spool.row(file)
    assert row.store.startswith("s3:")
    assert row.url == f"s3://{BUCKET}/{row.object_key}"
    assert await bench.stored(file) == file.data
    store = await bench.store_of(file)
    url = await store.playback_url(row.object_key, 60, {"Content-Type": "audio/wav"})
    assert url is not None
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert await answer.read() == file.data
    await store.delete(row.object_key)
    with pytest.raises(ObjectMissing):
        await store.head(row.object_key)


async def _has_no_multiparts(bench: Bench) -> bool:
    return await bench.multiparts() == []


async def _was_told(bench: Bench, file: SpooledFile, *codes: str) -> bool:
    return bool({*codes} & {*await bench.codes(file)})


async def _is_failing(bench: Bench) -> bool:
    return await _failing_ns(bench) != {}


async def _failing_ns(bench: Bench) -> dict[str, int]:
    rows = await bench.database.read(lanes.failing_lanes)
    return {row.app_id: row.failing_ns for row in rows}
