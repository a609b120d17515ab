"""Stores what came of attempts, many of them in one commit.

While one commit is on its way the next one gathers, so there is no interval to choose: few results are stored at once,
and many cost one fsync.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from roomtape_service.database import outbox
from roomtape_service.database.database import Database
from roomtape_service.database.errors import DatabaseClosed
from roomtape_service.database.outbox import Outcome
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["Results"]

_BATCH: Final = 512
"""A unit of work holds up all others; so many take some 20 ms."""
_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Results:
    """Takes outcomes and stores them. `run` owns everything that changes; `aclose` returns when all are stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Outcome, Callable[[], None] | None]] = []
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on they are stored."""
        self._runner = asyncio.create_task(self._run(), name="webhook-results")

    def put(self, outcome: Outcome, on_stored: Callable[[], None] | None = None) -> None:
        """Stores it soon, those of a lane in the order in which they are put, then calls `on_stored`."""
        self._waiting.append((outcome, on_stored))
        self._wake.set()

    async def aclose(self) -> None:
        """Stores what waits, and ends; what can't be stored is sent again after the next start. Idempotent."""
        self._stopping.set()
        self._wake.set()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    async def _run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            self._wake.clear()
            if not self._waiting:
                await self._wake.wait()
                continue
            batch = self._waiting[:_BATCH]
            try:
                await self._store([outcome for outcome, _ in batch])
            except DatabaseClosed:
                _log.error("webhook_results_lost", deliveries=len(self._waiting))
                return
            except Exception:
                _log.exception("webhook_results_not_stored", deliveries=len(self._waiting))
                if self._stopping.is_set():
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_SECONDS):
                        await self._stopping.wait()
                continue
            del self._waiting[: len(batch)]
            for _, on_stored in batch:
                if on_stored is not None:
                    on_stored()

    async def _store(self, outcomes: list[Outcome]) -> None:
        async def settle(uow: UnitOfWork) -> None:
            await outbox.settle(uow, outcomes)

        await self._database.write(settle)
