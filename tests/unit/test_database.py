"""The database by itself: units of work, their isolation, states, replies, migrations, on both backends."""

import asyncio
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import (
    Database,
    DatabaseClosed,
    DatabaseInUse,
    UnitOfWork,
    applications,
)
from roomtape_service.database.tables import events, metadata, tasks
from roomtape_service.errors import Refusal
from tests.support.databases import APP, ROOM, add_application, add_tasks, stored_texts, warning
from tests.support.postgres import PostgresServer

TASK = "1"


class Stop(Exception):
    """Ends a unit."""


async def test_a_unit_sees_its_own_writes_and_others_see_it_after_it(database: Database) -> None:
    async def work(uow: UnitOfWork) -> int | None:
        await uow.append(warning("one"))
        assert await stored_texts(database) == []
        return await uow.connection.scalar(select(func.count()).select_from(events))

    assert await database.write(work) == 1
    assert await stored_texts(database) == ["one"]


async def test_append_fills_in_what_only_the_log_knows(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, [TASK])
    given = event_pb2.Event(
        type=event_pb2.EVENT_TYPE_TASK_STARTED,
        app_id=APP,
        room_id=ROOM,
        task_id=TASK,
        task=event_pb2.TaskDetail(task=task_pb2.Task(task_id=TASK)),
    )

    async def work(uow: UnitOfWork) -> event_pb2.Event:
        await uow.append(warning("of no task"))
        return await uow.append(given)

    event = await database.write(work)
    assert (event.sequence, event.task_sequence, event.task.task.task_sequence) == (2, 1, 1)
    assert event.event_time.ToNanoseconds() == clock.now_ns()


async def test_a_unit_that_raises_leaves_nothing_and_hurts_no_neighbour(database: Database) -> None:
    heard: list[int] = []
    database.subscribe(lambda appended: heard.extend(event.sequence for event in appended))

    async def work(name: str, uow: UnitOfWork) -> None:
        await uow.append(warning(name))
        if name.startswith("bad"):
            raise Stop(name)

    names = [f"{kind}{index}" for index in range(10) for kind in ("good", "bad")]
    results = await asyncio.gather(
        *(database.write(partial(work, name)) for name in names), return_exceptions=True
    )
    assert [isinstance(result, Stop) for result in results] == [name.startswith("bad") for name in names]
    assert sorted(await stored_texts(database)) == sorted(name for name in names if name.startswith("good"))
    assert heard == list(range(1, 11))


async def test_a_refused_statement_ends_its_unit_only(database: Database) -> None:
    async def twice(uow: UnitOfWork) -> None:
        await applications.add(uow, applications.ApplicationRecord(APP))

    with pytest.raises(Refusal) as refused:
        await database.write(twice)
    assert refused.value.reason == error_pb2.ERROR_REASON_APPLICATION_EXISTS
    await database.write(lambda uow: uow.append(warning("after")))
    assert await stored_texts(database) == ["after"]


@pytest.mark.parametrize("when", ["queued", "running", "committing"])
async def test_a_cancelled_caller_leaves_all_or_nothing(database: Database, when: str) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def slow(uow: UnitOfWork) -> None:
        await uow.append(warning("one"))
        running.set()
        await go_on.wait()
        await uow.append(warning("two"))

    async def blocker(uow: UnitOfWork) -> None:
        await asyncio.sleep(0)

    before = asyncio.create_task(database.write(blocker))
    caller = asyncio.create_task(database.write(slow))
    if when == "queued":
        await asyncio.sleep(0)
    else:
        await running.wait()
    if when == "committing":
        go_on.set()
        await asyncio.sleep(0)
    caller.cancel()
    go_on.set()
    await before
    with pytest.raises(asyncio.CancelledError):
        await caller
    await database.write(lambda uow: uow.append(warning("after")))
    # A unit that nobody waits for has ended when the database is closed at the latest.
    texts = await stored_texts(database)
    assert texts in (["after"], ["one", "two", "after"], ["after", "one", "two"])


async def test_work_that_is_cancelled_from_within_does_not_stop_the_writer(database: Database) -> None:
    async def work(uow: UnitOfWork) -> None:
        await uow.append(warning("one"))
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await database.write(work)
    await database.write(lambda uow: uow.append(warning("after")))
    assert await stored_texts(database) == ["after"]


async def test_a_listener_that_raises_is_no_ones_trouble(database: Database) -> None:
    def fail(appended: object) -> None:
        raise Stop

    heard: list[int] = []
    database.subscribe(fail)
    database.subscribe(lambda appended: heard.extend(event.sequence for event in appended))
    await database.write(lambda uow: uow.append(warning("one")))
    assert heard == [1]


async def test_events_of_unknown_owners_are_refused(database: Database) -> None:
    with pytest.raises(Refusal) as refused:
        await database.write(lambda uow: uow.append(warning("one", app_id="nobody")))
    assert refused.value.reason == error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND
    await add_application(database, "other")
    await add_tasks(database, [TASK], app_id="other")
    with pytest.raises(LookupError):
        await database.write(lambda uow: uow.append(warning("one", task_id=TASK)))
    assert await stored_texts(database) == []


async def test_a_snapshot_can_not_write_and_stands_still(database: Database) -> None:
    async def write(connection: AsyncConnection) -> None:
        await connection.execute(update(tasks).values(state=1))

    async def look_twice(connection: AsyncConnection) -> list[int | None]:
        count = select(func.count()).select_from(events)
        before = await connection.scalar(count)
        await database.write(lambda uow: uow.append(warning("one")))
        return [before, await connection.scalar(count)]

    for number, read in enumerate((database.read, database.scan)):
        with pytest.raises(DBAPIError):
            await read(write)
        assert await read(look_twice) == [number, number]


async def test_units_that_lock_in_opposite_order_both_succeed(
    postgres: PostgresServer, clock: ManualClock
) -> None:
    task_locked, log_locked = asyncio.Event(), asyncio.Event()
    runs = 0

    async def state_first(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await uow.connection.execute(update(tasks).where(tasks.c.task_id == TASK).values(labels="{}"))
        task_locked.set()
        await log_locked.wait()
        await uow.append(warning("a", task_id=TASK))

    async def event_first(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await task_locked.wait()
        await uow.append(warning("b"))
        log_locked.set()
        await uow.append(warning("c", task_id=TASK))

    with postgres.database("opposite_order") as url:
        database = Database(url, clock)
        await database.open()
        await add_application(database, APP)
        await add_tasks(database, [TASK])
        heard: list[int] = []
        database.subscribe(lambda appended: heard.extend(event.sequence for event in appended))
        await asyncio.gather(database.write(state_first), database.write(event_first))
        assert runs == 3
        assert await stored_texts(database) in (["a", "b", "c"], ["b", "c", "a"])
        assert heard == [1, 2, 3]
        await database.aclose()


async def test_a_closed_database_finishes_what_it_took_and_takes_no_more(database: Database) -> None:
    writing = [asyncio.create_task(database.write(lambda uow: uow.append(warning("one")))) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(database.aclose(), database.aclose())
    assert sorted(event.sequence for event in await asyncio.gather(*writing)) == list(range(1, 21))
    with pytest.raises(DatabaseClosed):
        await database.write(lambda uow: uow.append(warning("late")))
    for read in (database.read, database.scan):
        with pytest.raises(DatabaseClosed):
            await read(applications.all_ids)


async def test_opening_again_keeps_the_epoch_and_the_log(database_url: str, clock: ManualClock) -> None:
    epochs = set()
    for _ in range(2):
        database = Database(database_url, clock)
        await database.open()
        epochs.add(database.epoch)
        await database.aclose()
    assert len(epochs) == 1


async def test_the_migrations_make_the_tables_of_today(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await database.read(lambda connection: connection.run_sync(differences)) == []


async def test_sqlite_is_durable_and_checks_references(tmp_path: Path, clock: ManualClock) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()

    async def pragmas(uow: UnitOfWork) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [await uow.connection.scalar(text(f"PRAGMA {name}")) for name in names]

    assert await database.write(pragmas) == ["wal", 2, 1]
    await database.aclose()


async def test_sqlite_is_one_process_only(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    database = Database(url, clock)
    await database.open()
    script = (
        "import asyncio, sys\n"
        "from roomtape_service.clock import SystemClock\n"
        "from roomtape_service.database import Database\n"
        "asyncio.run(Database(sys.argv[1], SystemClock()).open())"
    )
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, url], stderr=subprocess.PIPE, text=True
    )
    assert DatabaseInUse.__name__ in other.stderr
    await database.aclose()
    again = Database(url, clock)
    await again.open()
    await again.aclose()


async def test_sqlite_waits_for_somebody_who_holds_the_file(tmp_path: Path, clock: ManualClock) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()
    await add_application(database, APP)
    visitor = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    visitor.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(database.write(lambda uow: uow.append(warning("one"))))
    # Readers go on meanwhile.
    assert await stored_texts(database) == []
    assert not writing.done()
    visitor.execute("ROLLBACK")
    visitor.close()
    assert (await writing).sequence == 1
    await database.aclose()


def test_other_databases_are_refused(clock: ManualClock) -> None:
    for url in ("mysql://host/name", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="is neither"):
            Database(url, clock)


async def test_a_unit_that_waits_for_another_one_is_a_defect(tmp_path: Path, clock: ManualClock) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()

    async def outer(uow: UnitOfWork) -> None:
        await database.write(lambda inner: applications.find(inner.connection, APP))

    with pytest.raises(RuntimeError, match="one writer"):
        await database.write(outer)
    await database.aclose()


async def test_a_disk_that_is_full_fails_what_was_not_stored_and_nothing_after_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()
    await add_application(database, APP)

    async def fill(uow: UnitOfWork) -> None:
        await uow.connection.execute(text("PRAGMA max_page_count = 1"))
        await uow.append(warning("x" * 1_000_000))

    results = await asyncio.gather(
        *(database.write(lambda uow: uow.append(warning("small"))) for _ in range(5)),
        database.write(fill),
        *(database.write(lambda uow: uow.append(warning("small"))) for _ in range(5)),
        return_exceptions=True,
    )
    assert isinstance(results[5], DBAPIError)
    kept = [result.sequence for result in results if isinstance(result, event_pb2.Event)]
    assert kept == list(range(1, len(kept) + 1))
    assert await stored_texts(database) == ["small"] * len(kept)
    assert (await database.write(lambda uow: uow.append(warning("after")))).sequence == len(kept) + 1
    await database.aclose()
