"""PostgreSQL: each unit in a transaction of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from roomtape_service import failpoints
from roomtape_service.clock import Clock
from roomtape_service.database.commits import Commits
from roomtape_service.database.errors import DatabaseClosed
from roomtape_service.database.routes import Routes
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["PostgresBackend"]

T = TypeVar("T")

_CONNECTIONS = 10
# A unit does nothing but database work; one that takes this long is stuck and holds locks.
_UNIT_SECONDS = 30.0
# serialization_failure, deadlock_detected: the server took the unit back to let another one through.
_TAKEN_BACK = frozenset({"40001", "40P01"})
_ATTEMPTS = 5
# Any number that no other program uses for its advisory lock on the same database.
_MIGRATION_LOCK = 0x726F6F6D


class PostgresBackend:
    """A database that other nodes may use at the same time."""

    def __init__(self, url: str, clock: Clock, commits: Commits, routes: Routes) -> None:
        self._url = url
        self._clock = clock
        self._commits = commits
        self._routes = routes
        self._closing = False
        self._engine: AsyncEngine | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def version(self) -> None:
        """See Database."""
        return None

    async def open(self) -> None:
        """Connections are made when they are needed."""
        self._engine = create_async_engine(
            self._url, pool_size=_CONNECTIONS, max_overflow=0, pool_pre_ping=True
        )

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` while no other node does the same: for migrations."""
        async with self._open_engine().begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            return await work(connection)

    async def write(self, work: Callable[[UnitOfWork], Awaitable[None]], name: str) -> None:
        """Runs a unit, `name` for failpoints, to its end, even if the caller goes."""
        task = asyncio.create_task(self._unit(work, name))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        await asyncio.shield(task)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` on a snapshot."""
        async with self._open_engine().connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return await work(connection)

    async def scan(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """As `read`: the server works elsewhere."""
        return await self.read(work)

    async def aclose(self) -> None:
        """Waits for the units that run, then closes the connections."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    def _open_engine(self) -> AsyncEngine:
        if self._closing or self._engine is None:
            raise DatabaseClosed("The database is not open.")
        return self._engine

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # A caller that went away does not ask for it.
            task.exception()

    async def _unit(self, work: Callable[[UnitOfWork], Awaitable[None]], name: str) -> None:
        engine = self._open_engine()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._attempt(engine, work, name)
                return
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _TAKEN_BACK or attempt == _ATTEMPTS:
                    raise

    async def _attempt(
        self, engine: AsyncEngine, work: Callable[[UnitOfWork], Awaitable[None]], name: str
    ) -> None:
        async with engine.connect() as connection:
            unit_of_work = UnitOfWork(connection, self._clock.now_ns(), self._commits, self._routes)
            try:
                async with asyncio.timeout(_UNIT_SECONDS):
                    await work(unit_of_work)
                failpoints.hit_commit(name)
                await connection.commit()
            except BaseException:
                unit_of_work.rolled_back()
                raise
            failpoints.hit_commit(name, is_durable=True)
            unit_of_work.committed()
