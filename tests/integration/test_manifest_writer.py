"""When manifests are written, where they go, and that a task completes with its last one, whatever happens between."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration

from roomtape.v1 import event_pb2, storage_pb2, task_pb2
from roomtape_service.database import UnitOfWork, lanes
from roomtape_service.database.tables import manifests, removals, segments
from roomtape_service.manifest.writer import ManifestWriter
from tests.support.databases import APP
from tests.support.manifest_bench import ManifestBench
from tests.support.spooled import events_of_type
from tests.support.stores import disk_settings
from tests.support.uploading import OTHER, OTHER_TASK, TASK, upload_bench
from tests.support.waiting import eventually

COMPLETED, FINALIZING = task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FINALIZING
KEY = f"app_room/{TASK}/manifest.json"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ManifestBench]:
    async with upload_bench(tmp_path) as uploading:
        # The other task of the bench needs none.
        row = sa.insert(manifests).values(task_id=OTHER_TASK, app_id=OTHER, wanted=0)
        await uploading.database.write(lambda uow: uow.connection.execute(row), name="test")
        yield ManifestBench(uploading)


async def test_a_running_task_has_one_every_ten_seconds(bench: ManifestBench) -> None:
    file = await bench.spooled()
    await bench.changed()
    async with bench.writer() as writer:
        first = await bench.until_written()
        assert first.state == "RECORDING"
        assert not first.complete
        assert first.service_version == "1.2.3"
        assert first.object_key == KEY
        assert [each.state for each in first.recordings[0].segments[0].files] == ["SPOOLED"]
        await bench.stored(file)
        bench.clock.advance(9.9)
        writer.wake()
        other = await bench.spooled()
        await asyncio.wait_for(bench.stored(other), 5)
        assert not await bench.is_written()
        bench.clock.advance(0.2)
        writer.wake()
        second = await bench.until_written()
        assert len(second.recordings) == 2
        assert writer.statistics().written == 2


async def test_the_last_comes_at_once_and_completes_the_task(bench: ManifestBench) -> None:
    file = await bench.spooled()
    await bench.changed()
    async with bench.writer():
        await bench.until_written()
        await bench.stopped(file)
        assert await bench.state() == FINALIZING
        await bench.stored(file)
        manifest = await bench.until_written()
        await eventually(lambda: is_completed(bench), "the task is complete")
    assert manifest.complete
    assert manifest.state == "COMPLETED"
    (event,) = await bench.completions()
    assert event.task.task.complete_time.ToNanoseconds() == manifest.complete_ns
    (changed,) = await events_of_type(bench.bench.database, event_pb2.EVENT_TYPE_TASK_STATE_CHANGED)
    assert changed.sequence == event.sequence - 1
    row = await bench.row()
    assert row is not None
    assert row.is_complete


async def is_completed(bench: ManifestBench) -> bool:
    return await bench.state() == COMPLETED


async def test_what_changes_while_the_last_is_written_is_in_the_last(bench: ManifestBench) -> None:
    file = await bench.spooled()
    await bench.stored(file)
    await bench.stopped(file)
    steps = bench.bench.steps
    steps.begin_again("after put_bytes")
    async with bench.writer():
        await steps.is_there.wait()
        steps.begin_again()
        await bench.changed()
    assert await bench.state() == FINALIZING
    async with bench.writer():
        manifest = await bench.until_written()
    assert manifest.complete
    assert len(await bench.completions()) == 1


async def test_a_crash_anywhere_only_writes_it_again(bench: ManifestBench) -> None:
    file = await bench.spooled()
    await bench.stored(file)
    await bench.stopped(file)
    steps, places = bench.bench.steps, 0
    while await bench.state() != COMPLETED:
        places += 1
        steps.begin_again(places)
        async with bench.writer():
            await steps.is_there.wait()
        steps.begin_again()
    # Around the rows of old tasks, the object, and the unit that stores and completes.
    assert places == 6
    assert (await bench.read()).complete
    assert len(await bench.completions()) == 1


async def test_a_store_that_takes_nothing_is_tried_again_for_ever(
    bench: ManifestBench, tmp_path: Path
) -> None:
    root = tmp_path / "files"
    await bench.stopped()
    blocked = root / APP / "app_room"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    async with bench.writer() as writer:
        for attempt in range(1, 12):
            await eventually(partial(has_failed, writer, attempt), "it is tried again")
            assert await bench.state() == FINALIZING
            bench.clock.advance(400)
            writer.wake()
        blocked.unlink()
        bench.clock.advance(400)
        writer.wake()
        manifest = await bench.until_written()
    assert manifest.complete
    assert await bench.state() == COMPLETED


def has_failed(writer: ManifestWriter, times: int) -> bool:
    return writer.statistics().failed_attempts >= times


async def test_tasks_of_before_there_were_manifests_get_one(bench: ManifestBench) -> None:
    file = await bench.spooled()
    assert await bench.row() is None
    async with bench.writer():
        await eventually(lambda: bench.is_written(), "it is written")
        manifest = await bench.read()
    assert manifest.recordings[0].segments[0].files[0].file_id == file.file_id
    assert manifest.scopes[0].mode == "SINGLE"


async def test_it_follows_segments_to_the_second_store(bench: ManifestBench) -> None:
    await bench.bench.set_storage(two_stores())
    await bench.changed()
    async with bench.writer() as writer:
        await bench.until_written()
        assert await bench.is_there("first", f"a/{KEY}")

        async def down(uow: UnitOfWork) -> None:
            await lanes.fails(uow.connection, APP, "disk:first", uow.now_ns)
            await lanes.use_secondary(uow.connection, APP)

        await bench.bench.database.write(down, name="test")
        await bench.stopped()
        manifest = await bench.until_written()
        assert manifest.complete
        assert manifest.object_key == f"b/{KEY}"
        assert await bench.is_there("second", f"b/{KEY}")
        # The one that is not true any more is to be removed when its store is there again.
        assert await removed(bench) == [("disk:first", f"a/{KEY}")]
        await bench.bench.database.write(lambda uow: lanes.takes(uow.connection, APP), name="test")
        await bench.changed()
        bench.clock.advance(11)
        writer.wake()
        manifest = await bench.until_written()
        assert manifest.object_key == f"a/{KEY}"
        assert await removed(bench) == [("disk:second", f"b/{KEY}")]


async def test_it_goes_to_the_second_store_when_the_first_takes_no_manifest(
    bench: ManifestBench, tmp_path: Path
) -> None:
    await bench.bench.set_storage(two_stores())
    blocked = tmp_path / "files" / "first" / "a"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    await bench.stopped()
    async with bench.writer() as writer:
        await eventually(lambda: writer.statistics().failed_attempts >= 1, "it is tried")
        assert await bench.state() == FINALIZING
        bench.clock.advance(61)
        writer.wake()
        manifest = await bench.until_written()
    assert manifest.complete
    assert await bench.is_there("second", f"b/{KEY}")
    assert await bench.state() == COMPLETED


async def test_ten_thousand_segments_keep_nobody_waiting(bench: ManifestBench) -> None:
    file = await bench.spooled()
    await bench.stored(file)
    row = await bench.bench.spool.row(file)
    columns = [
        column.name for column in segments.c if column.name not in ("file_id", "segment_id", "object_key")
    ]
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
    values = f"file_id || i, i, object_key || i, {', '.join(columns)}"
    insert = sa.text(
        f"INSERT INTO segments (file_id, segment_id, object_key, {', '.join(columns)}) "
        f"{numbers} SELECT {values} FROM segments, n WHERE file_id = :file_id"
    )
    await bench.bench.database.write(
        lambda uow: uow.connection.execute(insert, {"file_id": row.file_id}), name="test"
    )
    await bench.stopped(file)
    stalls: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            stalls.append(time.perf_counter() - before)

    watching = asyncio.create_task(watch())
    begun = time.perf_counter()
    async with bench.writer():
        await eventually(lambda: is_completed(bench), "the task is complete")
    seconds = time.perf_counter() - begun
    watching.cancel()
    manifest = await bench.read()
    assert len(manifest.recordings[0].segments) == 10_000
    # On a machine that does nothing else: 0.7 s, and 0.1 s at the worst.
    assert seconds < 30
    assert sorted(stalls)[len(stalls) * 9 // 10] < 0.25


def two_stores() -> storage_pb2.StorageSettings:
    """A folder, and after a minute another one."""
    settings = disk_settings("first", "a")
    settings.secondary.disk.folder = "second"
    settings.secondary.prefix = "b"
    settings.secondary.after.CopyFrom(Duration(seconds=60))
    return settings


async def removed(bench: ManifestBench) -> list[tuple[str, str]]:
    async def work(uow: UnitOfWork) -> list[tuple[str, str]]:
        rows = await uow.connection.execute(sa.select(removals.c.store, removals.c.object_key))
        return [(row[0], row[1]) for row in rows]

    return await bench.bench.database.write(work, name="test")
