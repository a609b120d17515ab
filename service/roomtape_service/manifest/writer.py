"""Manifests on their way into their stores, and with the last of a task its completion.

1. What is to do stands in the database alone: manifests that tell of fewer changes than there were.
2. An attempt reads the task at one moment, puts the document, and stores that it is written up to that moment.
3. The last one is put before the task is COMPLETED, and says already that it is. One unit of work stores that it is
   written and completes the task, unless something changed meanwhile: then the next attempt does. A crash anywhere
   before only writes it again.
4. When the last file of a task was deleted, or has expired, its manifest goes as well.
5. A store that fails is tried again for ever, one manifest at a time; the warning of it comes with the segments. Where
   segments go to the secondary store, or the first took no manifest for as long, manifests go there, too.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, manifests
from roomtape_service.database.database import Database
from roomtape_service.database.manifests import ManifestRow
from roomtape_service.manifest.attempt import ManifestAttempts
from roomtape_service.manifest.sending import Way
from roomtape_service.storage.store import StoreError, StoreUnavailable
from roomtape_service.storage.stores import Stores

__all__ = ["INTERVAL_SECONDS", "ManifestStatistics", "ManifestWriter"]

INTERVAL_SECONDS = 10.0
"""How often at most the manifest of a task is written while it runs."""

_PARALLEL_WRITES = 8
_LOOK_SECONDS = 10.0
_COALESCE_SECONDS = 0.02
"""Commits come in swarms: they are looked at together."""

_WAKING = frozenset(
    {
        event_pb2.EVENT_TYPE_TASK_STARTED,
        event_pb2.EVENT_TYPE_TASK_STOPPED,
        event_pb2.EVENT_TYPE_RECORDING_ENDED,
        event_pb2.EVENT_TYPE_SEGMENT_UPLOADED,
        event_pb2.EVENT_TYPE_SEGMENT_DELETED,
        event_pb2.EVENT_TYPE_SEGMENT_EXPIRED,
        event_pb2.EVENT_TYPE_SEGMENT_LOST,
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
        event_pb2.EVENT_TYPE_SEGMENTS_JOINED,
    }
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ManifestStatistics:
    """What happened since the start."""

    written: int
    written_bytes: int
    failed_attempts: int
    running: int


class ManifestWriter:
    """Writes manifests until it is closed. `run` owns everything that changes."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        clock: Clock,
        *,
        service_version: str,
        randomness: random.Random | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._random = randomness or random.Random()
        self._attempts = ManifestAttempts(
            database,
            stores,
            clock,
            self._random,
            service_version=service_version,
            interval_ns=round(interval_seconds * NANOSECONDS),
        )
        self._ways: dict[str, Way] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None
        self._written = 0
        self._written_bytes = 0
        self._failed_attempts = 0

    async def run(self) -> None:
        """Writes until `aclose`; returns then."""
        self._runner = asyncio.current_task()
        self._database.subscribe(self._committed)
        try:
            has_all = False
            while not self._is_closing:
                self._wake.clear()
                has_all = has_all or await self._add_missing()
                try:
                    seconds = await self._start_due()
                except Exception:
                    _log.exception("manifests_not_read")
                    seconds = _LOOK_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
                        await asyncio.sleep(_COALESCE_SECONDS)
        finally:
            self._database.unsubscribe(self._committed)
            running = list(self._tasks.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def retry_now(self, app_id: str) -> None:
        """All manifests of the application are due: its settings changed, or somebody mended its store."""
        await self._database.write(
            lambda uow: manifests.hasten(uow, app_id), name="manifest.writer.ManifestWriter.retry_now"
        )
        if way := self._ways.get(app_id):
            way.next_ns = way.first.next_ns = 0
        self._wake.set()

    async def retry_troubled(self) -> None:
        """All that waits for a store that failed is due: what was wrong with some may be mended."""
        for app_id in [app_id for app_id, way in self._ways.items() if way.failing_ns is not None]:
            await self.retry_now(app_id)

    async def aclose(self) -> None:
        """Ends `run`, and waits. What was being written is written after the next start."""
        self._is_closing = True
        self._wake.set()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    def wake(self) -> None:
        """There may be something to write, or a store may be mended. May be called at any time."""
        self._wake.set()

    def statistics(self) -> ManifestStatistics:
        """A snapshot."""
        return ManifestStatistics(
            written=self._written,
            written_bytes=self._written_bytes,
            failed_attempts=self._failed_attempts,
            running=len(self._tasks),
        )

    def _committed(self, events: Sequence[event_pb2.Event]) -> None:
        if any(event.type in _WAKING for event in events):
            self._wake.set()

    async def _add_missing(self) -> bool:
        """Whether all tasks have a row now; the disk of the database may be full at first."""
        try:
            added = await self._database.write(
                manifests.add_missing, name="manifest.writer.ManifestWriter.add_missing"
            )
        except (SQLAlchemyError, OSError):
            _log.exception("manifests_not_added")
            return False
        if added:
            _log.info("manifests_added", tasks=added)
        return True

    async def _start_due(self) -> float:
        """Starts what is due and fits. Returns after how many seconds to look again without a wake."""
        now_ns = self._clock.now_ns()
        self._ways = {app_id: way for app_id, way in self._ways.items() if not way.is_idle}
        for app_id, way in self._ways.items():
            await self._look_at_settings(app_id, way)
        full = [app_id for app_id, way in self._ways.items() if not way.free(now_ns)]
        limit = _PARALLEL_WRITES + len(self._tasks)

        async def read(connection: AsyncConnection) -> tuple[Sequence[ManifestRow], int | None]:
            rows = await manifests.due(connection, now_ns, without=full, limit=limit)
            return rows, await manifests.earliest(connection, now_ns)

        rows, earliest_ns = await self._database.read(read)
        for row in rows:
            if len(self._tasks) >= _PARALLEL_WRITES:
                break
            way = self._ways.setdefault(row.app_id, Way())
            if row.task_id not in self._tasks and way.free(now_ns):
                self._start(row, way)
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        waits = [way.next_ns for way in self._ways.values() if way.next_ns > now_ns]
        if earliest_ns is not None:
            waits.append(earliest_ns)
        return max(0.0, (min([next_ns, *waits]) - now_ns) / NANOSECONDS)

    async def _look_at_settings(self, app_id: str, way: Way) -> None:
        """With new settings trouble may be over."""
        if way.failing_ns is None:
            return
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        if application.revision != way.revision:
            way.begin_again(application.revision)
            await self.retry_now(app_id)

    def _start(self, row: ManifestRow, way: Way) -> None:
        way.in_hand.add(row.task_id)
        task = asyncio.create_task(self._write(row, way), name=f"manifest-{row.task_id}")
        self._tasks[row.task_id] = task

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.pop(row.task_id, None)
            way.in_hand.discard(row.task_id)
            if not task.cancelled() and (error := task.exception()):
                # Its delay could not be stored: it must not be tried again at once and for ever.
                _log.error("manifest_lost", app_id=row.app_id, task_id=row.task_id, exc_info=error)
                way.failed(way.first, _internal(error), self._clock.now_ns(), self._random)
            self._wake.set()

        task.add_done_callback(done)

    async def _write(self, row: ManifestRow, way: Way) -> None:
        try:
            size_bytes = await self._attempts.write(row, way)
        except StoreError as error:
            await self._delay(row, way, error)
            return
        except Exception as error:
            _log.exception("manifest_failed", app_id=row.app_id, task_id=row.task_id)
            failure = _internal(error)
            way.failed(way.first, failure, self._clock.now_ns(), self._random)
            await self._delay(row, way, failure)
            return
        if size_bytes is not None:
            self._written += 1
            self._written_bytes += size_bytes

    async def _delay(self, row: ManifestRow, way: Way, error: StoreError) -> None:
        self._failed_attempts += 1
        _log.warning(
            "manifest_delayed",
            app_id=row.app_id,
            task_id=row.task_id,
            error_code=error.code,
            error=error.message,
        )
        await self._database.write(
            lambda uow: manifests.delay(uow, row.task_id, way.next_ns),
            name="manifest.writer.ManifestWriter.delay",
        )


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
