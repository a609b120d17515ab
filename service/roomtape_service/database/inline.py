"""SQLite statements without a thread between them and the caller."""

from collections.abc import Callable
from typing import Any, TypeVar

import aiosqlite

__all__ = ["InlineConnection"]

T = TypeVar("T")


class InlineConnection(aiosqlite.Connection):
    """Runs statements on the caller's thread, and only what waits for the disk on its own.

    Statements of units and of short reads find their pages in memory (WAL writes them at the commit) and take
    microseconds, while every hop to a thread and back costs tens of them, and milliseconds when the event loop is
    busy. If a release of aiosqlite takes this hook away, everything works as before, only slower.
    """

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if fn == self._conn.close:
            return await self.in_thread(fn, *args, **kwargs)
        return fn(*args, **kwargs)

    async def in_thread(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Runs it on the connection's thread."""
        result: T = await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return result

    def now(self, statement: str) -> None:
        """Runs a statement without rows at once."""
        self._conn.execute(statement).close()

    async def begin(self) -> None:
        """Takes the file's write lock."""
        await self.in_thread(self._conn.execute, "BEGIN IMMEDIATE")

    async def commit(self) -> None:
        """Returns when the transaction is on the disk."""
        await self.in_thread(self._conn.commit)

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open: SQLite ends it by itself when the disk is full or fails."""
        return self._conn.in_transaction
