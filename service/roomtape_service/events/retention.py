"""Keeps the history within its bounds: old events and old replies go."""

import asyncio

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import Database, applications, events, requests
from roomtape_service.events.log import EventLog

__all__ = ["Retention"]

# How far behind the bounds the history may be; finer would only wake the disk more often.
_INTERVAL_SECONDS = 60.0
# Deleted in one unit of work, so that writers wait for milliseconds only.
_PURGED_REPLIES = 500

_log = structlog.get_logger(__name__)


class Retention:
    """Compacts every application's log to `keep_events`, to `keep_bytes`, and to what is younger than `keep_seconds`.

    Of the log's bytes those of its events count, as they are sent.
    """

    def __init__(
        self,
        database: Database,
        log: EventLog,
        clock: Clock,
        *,
        keep_seconds: float,
        keep_events: int,
        keep_bytes: int,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._events = log
        self._clock = clock
        self._keep_ns = round(keep_seconds * NANOSECONDS)
        self._keep_events = keep_events
        self._keep_bytes = keep_bytes
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
                    _log.exception("retention_failed")
                try:
                    async with asyncio.timeout(self._interval_seconds):
                        await self._closing.wait()
                except TimeoutError:
                    pass
        finally:
            self._stopped.set()

    async def tick(self) -> None:
        """Brings everything within its bounds once."""
        older_than_ns = self._clock.now_ns() - self._keep_ns
        for app_id in await self._database.read(applications.all_ids):
            await self._compact(app_id, older_than_ns)
        while await self._database.write(
            lambda uow: requests.purge(uow, _PURGED_REPLIES), name="events.retention.Retention.purge"
        ):
            pass

    async def aclose(self) -> None:
        """Ends `run`, and waits for it. Idempotent."""
        self._closing.set()
        await self._stopped.wait()

    async def _compact(self, app_id: str, older_than_ns: int) -> None:
        ends, through = await self._database.scan(
            lambda connection: events.expired_through(
                connection,
                app_id,
                keep_events=self._keep_events,
                keep_bytes=self._keep_bytes,
                older_than_ns=older_than_ns,
            )
        )
        if through > ends.compacted:
            await self._events.compact(app_id, through)
            _log.info("events_compacted", app_id=app_id, through=through, events=through - ends.compacted)
