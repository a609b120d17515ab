"""Keeps the rows of webhooks within their bounds."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import webhook_expiry
from roomtape_service.database.database import Database
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.database.webhook_expiry import Kept

__all__ = ["WebhookRetention"]

# How far behind the bounds the rows may be; finer would only wake the disk more often.
_INTERVAL_SECONDS: Final = 60.0
# Removed in one unit of work, so that writers wait for milliseconds only.
_REMOVED_ROWS: Final = 500

_Remove: TypeAlias = Callable[[UnitOfWork, Kept, int], Awaitable[int]]

_log = structlog.get_logger(__name__)


class WebhookRetention:
    """Removes deliveries `keep_seconds` after they were made, and all of a webhook but its newest `keep_delivered`.

    Dead letters, and what waits for a disabled webhook, go with their events. Deleted webhooks go with all that they
    had, and keys when they have ended.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        keep_seconds: float,
        keep_delivered: int,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._keep_ns = round(keep_seconds * NANOSECONDS)
        self._keep_delivered = keep_delivered
        self._interval_seconds = interval_seconds
        self._closing = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Ticks until `aclose`; what goes wrong in a tick is logged and tried again in the next."""
        self._stopped.clear()
        try:
            while not self._closing.is_set():
                try:
                    await self.tick()
                except Exception:
                    _log.exception("webhook_retention_failed")
                try:
                    async with asyncio.timeout(self._interval_seconds):
                        await self._closing.wait()
                except TimeoutError:
                    pass
        finally:
            self._stopped.set()

    async def tick(self) -> None:
        """Brings everything within its bounds once."""
        before_ns = self._clock.now_ns() - self._keep_ns
        found = await self._database.scan(
            partial(webhook_expiry.kept, delivered_before_ns=before_ns, keep_delivered=self._keep_delivered)
        )
        for each in found:
            if each.is_deleted:
                removed = await self._remove(webhook_expiry.remove_deleted, each)
                _log.info("webhook_removed", app_id=each.app_id, webhook_id=each.webhook_id, rows=removed)
                continue
            if each.delivered_ns:
                await self._remove(webhook_expiry.remove_delivered, each)
            if each.dead_sequence:
                await self._tell(webhook_expiry.remove_dead, "webhook_dead_letters_expired", each)
            if each.disabled_sequence:
                await self._tell(webhook_expiry.remove_disabled, "webhook_queue_expired", each)
        if await self._database.scan(partial(webhook_expiry.have_ended, now_ns=self._clock.now_ns())):
            await self._database.write(
                webhook_expiry.remove_ended, name="webhooks.retention.WebhookRetention.remove_ended_keys"
            )

    async def aclose(self) -> None:
        """Ends `run`, and waits for it. Idempotent."""
        self._closing.set()
        await self._stopped.wait()

    async def _tell(self, remove: _Remove, event: str, each: Kept) -> None:
        removed = await self._remove(remove, each)
        if removed:
            _log.warning(event, app_id=each.app_id, webhook_id=each.webhook_id, deliveries=removed)

    async def _remove(self, remove: _Remove, each: Kept) -> int:
        total = 0
        while not self._closing.is_set():
            removed = await self._database.write(
                lambda uow: remove(uow, each, _REMOVED_ROWS),
                name="webhooks.retention.WebhookRetention.remove",
            )
            total += removed
            if not removed:
                break
        return total
