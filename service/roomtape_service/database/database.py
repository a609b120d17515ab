"""The database as the rest of the service sees it."""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service import failpoints
from roomtape_service.clock import Clock
from roomtape_service.database.commits import Commits, Listener
from roomtape_service.database.migrations import upgrade
from roomtape_service.database.postgres import PostgresBackend
from roomtape_service.database.routes import Routes, Waker
from roomtape_service.database.sqlite import SqliteBackend
from roomtape_service.database.tables import meta
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["Database"]

T = TypeVar("T")

_EPOCH_BYTES = 8


class Database:
    """State that survives: units of work, snapshots, and word of what was committed.

    `url` is `sqlite:///relative/file.db`, `sqlite:////absolute/file.db` or `postgresql://user@host:port/name`.
    `new_epoch` makes the random id of a log, 16 hexadecimal digits. Raises ValueError for any other url.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        new_epoch: Callable[[], str] = lambda: secrets.token_hex(_EPOCH_BYTES),
    ) -> None:
        parsed = make_url(url)
        self._commits = Commits()
        self._routes = Routes()
        self._new_epoch = new_epoch
        self._epoch: str | None = None
        self._backend: SqliteBackend | PostgresBackend
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            self._backend = SqliteBackend(Path(str(parsed.database)), clock, self._commits, self._routes)
        elif parsed.get_backend_name() == "postgresql":
            url = parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
            self._backend = PostgresBackend(url, clock, self._commits, self._routes)
        else:
            raise ValueError(f"{parsed!r} is neither sqlite:///a/file nor postgresql://a/server")

    @property
    def epoch(self) -> str:
        """The random id of this log, made with the database: 16 hexadecimal digits."""
        assert self._epoch is not None, "the database is not open"
        return self._epoch

    @property
    def version(self) -> int | None:
        """Another number after each commit, before its `write` returns; None where others may write too.

        Of two reads that began at the same version the second finds nothing new.
        """
        return self._backend.version

    async def open(self) -> None:
        """Connects, and brings the tables to their newest shape. Raises DatabaseInUse, or the driver's error."""
        try:
            await self._backend.open()
            self._epoch = await self._backend.transaction(self._prepare)
        except BaseException:
            await self._backend.aclose()
            raise

    async def write(self, work: Callable[[UnitOfWork], Awaitable[T]], *, name: str = "") -> T:
        """Runs one unit of work, and returns what `work` returned after it is durable.

        Everything or nothing: if `work` raises, nothing of it is left and the exception comes out here. If the
        caller is cancelled, the unit is either carried out in whole or not at all. Keep effects outside of the
        database until after this returns: PostgreSQL may take a unit back and let it run again, and the
        transaction may fail in the end. A unit that takes over 30 s is rolled back (TimeoutError). `name` is that of
        its failpoints, for a `work` whose own does not tell. Raises DatabaseClosed.
        """
        results: list[T] = []

        async def run(unit_of_work: UnitOfWork) -> None:
            results.append(await work(unit_of_work))

        await self._backend.write(run, name or failpoints.name_of(work))
        return results[-1]

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` on a snapshot that can't write and has all that was durable. Raises DatabaseClosed.

        For rows that an index finds: SQLite runs it on the event loop, in microseconds.
        """
        return await self._backend.read(work)

    async def scan(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """As `read`, for what may look at very many rows: the event loop goes on meanwhile."""
        return await self._backend.scan(work)

    def subscribe(self, listener: Listener) -> None:
        """Calls `listener` after each commit with its events of one application, in the order of `sequence`.

        It is called before `write` returns, must not block, and can't fail anything. A commit whose answer was
        lost is not told, so a listener may see a hole; the events table has it.
        """
        self._commits.subscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Calls it no more. Raises ValueError if it was not subscribed."""
        self._commits.unsubscribe(listener)

    def subscribe_deliveries(self, waker: Waker) -> None:
        """Calls `waker` after each commit that queued deliveries to webhooks or made some due, with the webhooks' ids.

        It is called before `write` returns, must not block, and can't fail anything. A commit whose answer was lost is
        not told, nor is one of another node.
        """
        self._routes.subscribe(waker)

    def unsubscribe_deliveries(self, waker: Waker) -> None:
        """Calls it no more. Raises ValueError if it was not subscribed."""
        self._routes.unsubscribe(waker)

    async def aclose(self) -> None:
        """Refuses new units, finishes those that were accepted, and closes. Idempotent."""
        await self._backend.aclose()

    async def _prepare(self, connection: AsyncConnection) -> str:
        await connection.run_sync(upgrade)
        epoch = await connection.scalar(select(meta.c.value).where(meta.c.key == "epoch"))
        if epoch is None:
            epoch = self._new_epoch()
            await connection.execute(insert(meta).values(key="epoch", value=epoch))
        return str(epoch)
