"""Files whose retention is over go from the library and from their stores."""

import asyncio
from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.clock import Clock
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow, expired_segments, find_segment
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.library.deleting import take_from_library
from roomtape_service.library.removing import Removals

__all__ = ["Expiry"]

# Retention counts days: who looks each minute is early enough.
_INTERVAL_SECONDS = 60.0
# In one unit of work, so that other writers wait for milliseconds only.
_BATCH_FILES = 32

_EXPIRED = segment_pb2.SEGMENT_STATE_EXPIRED

_log = structlog.get_logger(__name__)


class Expiry:
    """Makes UPLOADED files EXPIRED when their time is over. When that is was decided when they were uploaded."""

    def __init__(
        self,
        database: Database,
        removing: Removals,
        clock: Clock,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._removing = removing
        self._clock = clock
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
                    _log.exception("expiry_failed")
                try:
                    async with asyncio.timeout(self._interval_seconds):
                        await self._closing.wait()
                except TimeoutError:
                    pass
        finally:
            self._stopped.set()

    async def tick(self) -> None:
        """Expires everything that is over."""
        while not self._closing.is_set():
            now_ns = self._clock.now_ns()

            async def read(connection: AsyncConnection, now_ns: int = now_ns) -> Sequence[SegmentRow]:
                return await expired_segments(connection, now_ns, _BATCH_FILES)

            rows = await self._database.read(read)
            if not rows:
                return
            for app_id in sorted({row.app_id for row in rows}):
                await self._expire(app_id, [row for row in rows if row.app_id == app_id])
            self._removing.wake()

    async def aclose(self) -> None:
        """Ends `run`, and waits for it. Idempotent."""
        self._closing.set()
        await self._stopped.wait()

    async def _expire(self, app_id: str, rows: Sequence[SegmentRow]) -> None:
        async def expire(uow: UnitOfWork) -> int:
            await uow.lock_application(app_id)
            count = 0
            for each in rows:
                row = await find_segment(uow.connection, app_id, each.file_id)
                # It may have been deleted since.
                if row is not None and row.state == segment_pb2.SEGMENT_STATE_UPLOADED:
                    await take_from_library(uow, row, _EXPIRED, due_ns=0)
                    count += 1
            return count

        count = await self._database.write(expire)
        _log.info("files_expired", app_id=app_id, files=count)
