"""SQLite: one writer that commits many units at once, and readers beside it."""

import asyncio
import contextvars
import fcntl
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import aiosqlite
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from roomtape_service import failpoints
from roomtape_service.clock import Clock
from roomtape_service.database.commits import Commits
from roomtape_service.database.errors import DatabaseClosed, DatabaseInUse
from roomtape_service.database.inline import InlineConnection
from roomtape_service.database.routes import Routes
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["SqliteBackend"]

T = TypeVar("T")
_Work = Callable[[UnitOfWork], Awaitable[None]]

# One fsync carries at most this many units: more would only make the first of them wait longer.
_BATCH_UNITS = 128
# A batch takes no further unit after this long, so that a slow unit delays its neighbours' replies only once.
_BATCH_NS = 20_000_000
# A unit does nothing but database work; one that takes this long is stuck and stops everybody.
_UNIT_SECONDS = 30.0
# Somebody may look into the file with another tool; they hold its lock for moments.
_BUSY_SECONDS = 30.0
_READERS = 4
_SCANNERS = 3

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Unit:
    work: _Work
    name: str
    outcome: asyncio.Future[None]
    context: contextvars.Context


class SqliteBackend:
    """A database file, owned by this process while it is open."""

    def __init__(self, path: Path, clock: Clock, commits: Commits, routes: Routes) -> None:
        self._path = path
        self._clock = clock
        self._commits = commits
        self._routes = routes
        self._units: deque[_Unit] = deque()
        self._wake = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._lock: IO[bytes] | None = None
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._scanner: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None
        self._reading = asyncio.Semaphore(_READERS)
        self._readers: list[tuple[AsyncConnection, InlineConnection]] = []
        self._task: asyncio.Task[None] | None = None
        self._unit_task: asyncio.Task[None] | None = None
        self.version = 0
        """See Database."""

    async def open(self) -> None:
        """Takes the file for this process. Raises DatabaseInUse."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._path)
        self._writer = create_async_engine(
            "sqlite+aiosqlite://", async_creator=self._connect_writer, poolclass=NullPool
        )
        self._reader = create_async_engine(
            "sqlite+aiosqlite://", async_creator=self._connect_reader, poolclass=NullPool
        )
        self._scanner = create_async_engine(
            "sqlite+aiosqlite:///scanner",
            async_creator=self._connect_scanner,
            pool_size=_SCANNERS,
            max_overflow=0,
        )
        event.listen(self._scanner.sync_engine, "begin", _begin_snapshot)
        self._task = asyncio.create_task(self._run(), name="database-writer")

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` in a transaction of its own before the first unit: for migrations."""
        connection, driver = await self._writing()
        await driver.begin()
        try:
            result = await work(connection)
            await driver.commit()
        except BaseException:
            await self._disconnect()
            raise
        return result

    async def write(self, work: _Work, name: str) -> None:
        """Queues a unit, `name` for failpoints, and returns when it is durable."""
        if self._closing is not None or self._task is None:
            raise DatabaseClosed("The database is not open.")
        if self._unit_task is not None and self._unit_task is asyncio.current_task():
            raise RuntimeError("a unit of work can't wait for another one: there is one writer")
        outcome = asyncio.get_running_loop().create_future()
        self._units.append(_Unit(work, name, outcome, contextvars.copy_context()))
        self._wake.set()
        await outcome

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` on a snapshot, on this thread."""
        # Nothing below waits, and who reads again and again must not keep the others from running.
        await asyncio.sleep(0)
        async with self._reading:
            if self._closing is not None or self._reader is None:
                raise DatabaseClosed("The database is not open.")
            if not self._readers:
                fresh = await self._reader.connect()
                self._readers.append((fresh, await _driver(fresh)))
            connection, driver = self._readers.pop()
            driver.now("BEGIN")
            try:
                return await work(connection)
            finally:
                driver.now("ROLLBACK")
                self._readers.append((connection, driver))

    async def scan(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` on a snapshot, on a thread of its own."""
        if self._closing is not None or self._scanner is None:
            raise DatabaseClosed("The database is not open.")
        async with self._scanner.connect() as connection:
            return await work(connection)

    async def aclose(self) -> None:
        """Finishes what is queued, then gives the file up."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._wake.set()
        if self._task is not None:
            await self._task
        for _ in range(_READERS):
            await self._reading.acquire()
        for connection, _ in self._readers:
            await connection.close()
        await self._disconnect()
        for engine in (self._scanner, self._reader, self._writer):
            if engine is not None:
                await engine.dispose()
        if self._lock is not None:
            self._lock.close()
        self._reading.release()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._units:
                await self._batch()
            if self._closing is not None:
                return

    async def _batch(self) -> None:
        """One transaction with as many units as are waiting, each in a savepoint.

        1. Take the file's write lock.
        2. Run unit after unit; one that raises is rolled back to its savepoint and answered.
        3. Commit, then hand the events to the listeners and answer the units, in this order.
        A failure of the transaction itself is the answer to every unit in it.
        """
        taken: list[_Unit] = []
        done: list[tuple[_Unit, UnitOfWork]] = []
        try:
            connection, driver = await self._writing()
            await driver.begin()
            ends_ns = self._clock.monotonic_ns() + _BATCH_NS
            while self._units and len(taken) < _BATCH_UNITS and self._clock.monotonic_ns() <= ends_ns:
                unit = self._units.popleft()
                if unit.outcome.done():
                    continue
                taken.append(unit)
                unit_of_work = UnitOfWork(connection, self._clock.now_ns(), self._commits, self._routes)
                if await self._run_unit(unit, unit_of_work, driver):
                    done.append((unit, unit_of_work))
            for unit, _ in done:
                failpoints.hit_commit(unit.name)
            await driver.commit()
            self.version += 1
        except Exception as error:
            # A commit that failed may be there all the same.
            self.version += 1
            _log.exception("database_batch_failed", units=len(taken))
            await self._disconnect()
            for _, unit_of_work in done:
                unit_of_work.rolled_back()
            if not taken:
                # The file can't be written at all: nobody in the queue would fare better.
                taken = list(self._units)
                self._units.clear()
            for unit in taken:
                if not unit.outcome.done():
                    unit.outcome.set_exception(error)
            return
        for unit, unit_of_work in done:
            failpoints.hit_commit(unit.name, is_durable=True)
            unit_of_work.committed()
            if not unit.outcome.done():
                unit.outcome.set_result(None)

    async def _run_unit(self, unit: _Unit, unit_of_work: UnitOfWork, driver: InlineConnection) -> bool:
        """Whether the unit is part of the transaction."""
        driver.now("SAVEPOINT unit")
        task = asyncio.get_running_loop().create_task(_call(unit.work, unit_of_work), context=unit.context)
        self._unit_task = task
        in_time, _ = await asyncio.wait((task,), timeout=_UNIT_SECONDS)
        if not in_time:
            task.cancel()
            await asyncio.wait((task,))
        self._unit_task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            driver.now("RELEASE unit")
            return True
        unit_of_work.rolled_back()
        if not in_time:
            error = TimeoutError(f"a unit of work took over {_UNIT_SECONDS} s")
        if not unit.outcome.done():
            if isinstance(error, asyncio.CancelledError):
                unit.outcome.cancel()
            else:
                unit.outcome.set_exception(error)
        if not driver.is_open:
            raise sqlite3.OperationalError("SQLite ended the transaction")
        driver.now("ROLLBACK TO unit")
        driver.now("RELEASE unit")
        return False

    async def _writing(self) -> tuple[AsyncConnection, InlineConnection]:
        if self._connection is None:
            assert self._writer is not None
            self._connection = await self._writer.connect()
        return self._connection, await _driver(self._connection)

    async def _disconnect(self) -> None:
        """Rolls back by closing: what state a failed transaction left does not matter then."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def _connect_writer(self) -> aiosqlite.Connection:
        return await self._connect(InlineConnection)

    async def _connect_reader(self) -> aiosqlite.Connection:
        return await self._connect(InlineConnection, "PRAGMA query_only = ON")

    async def _connect_scanner(self) -> aiosqlite.Connection:
        return await self._connect(aiosqlite.Connection, "PRAGMA query_only = ON")

    async def _connect(self, kind: type[aiosqlite.Connection], *pragmas: str) -> aiosqlite.Connection:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            for pragma in (
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
                *pragmas,
            ):
                connection.execute(pragma).close()
            return connection

        connection = kind(connect, iter_chunk_size=64)
        # As SQLAlchemy does where it makes the connection: a process that fails must be able to end.
        connection._thread.daemon = True
        return await connection


async def _driver(connection: AsyncConnection) -> InlineConnection:
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, InlineConnection)
    return driver


async def _call(work: _Work, unit_of_work: UnitOfWork) -> None:
    await work(unit_of_work)


def _begin_snapshot(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _locked(path: Path) -> IO[bytes]:
    """The lock beside the file; the kernel gives it back when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DatabaseInUse(f"Another process has the database {path}; stop it first.") from None
    return lock
