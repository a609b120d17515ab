"""Manifests on their way into their stores, and with the last of a task its completion.

1. What is to do stands in the database alone: manifests that tell of fewer changes than there were.
2. An attempt reads the task at one moment, puts the document, and stores that it is written up to that moment.
3. The last one is put before the task is COMPLETED, and says already that it is. One unit of work stores that it is
   written and completes the task, unless something changed meanwhile: then the next attempt does. A crash anywhere
   before only writes it again.
4. A store that fails is tried again for ever, one manifest at a time; the warning of it comes with the segments.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, manifests
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.database import Database
from roomtape_service.database.history import TaskHistory, history_of_task
from roomtape_service.database.manifests import ManifestRow, WrittenManifest
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.manifest.content import build, is_finished
from roomtape_service.manifest.encoding import encode
from roomtape_service.rules.naming import manifest_key
from roomtape_service.storage.lane import Lane
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import StoreError, StoreRefused, StoreUnavailable
from roomtape_service.storage.stores import Stores
from roomtape_service.tasks.completion import complete_if_done

__all__ = ["CONTENT_TYPE", "INTERVAL_SECONDS", "ManifestStatistics", "ManifestWriter"]

INTERVAL_SECONDS = 10.0
"""How often at most the manifest of a task is written while it runs."""
CONTENT_TYPE = "application/json"

_WORK_SHARE = 0.05
"""Of the time, at most so much goes into one manifest while its task runs, however large it is."""
_PARALLEL_WRITES = 8
_LOOK_SECONDS = 10.0
_COALESCE_SECONDS = 0.02
"""Commits come in swarms: they are looked at together."""
_SEGMENTS_AT_ONCE = 100
"""With more, the document is made in a thread: it takes longer than the event loop should stand still."""

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


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A task at one moment, with what its manifest has to tell of."""

    row: ManifestRow
    application: ApplicationRecord
    history: TaskHistory


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
        self._stores = stores
        self._clock = clock
        self._service_version = service_version
        self._random = randomness or random.Random()
        self._interval_ns = round(interval_seconds * NANOSECONDS)
        self._lanes: dict[str, Lane] = {}
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
            await self._add_missing()
            while not self._is_closing:
                self._wake.clear()
                try:
                    seconds = await self._start_due()
                except (SQLAlchemyError, OSError):
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
        if lane := self._lanes.get(app_id):
            lane.next_ns = 0
        self._wake.set()

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

    async def _add_missing(self) -> None:
        try:
            added = await self._database.write(
                manifests.add_missing, name="manifest.writer.ManifestWriter.add_missing"
            )
        except (SQLAlchemyError, OSError):
            _log.exception("manifests_not_added")
            return
        if added:
            _log.info("manifests_added", tasks=added)

    async def _start_due(self) -> float:
        """Starts what is due and fits. Returns after how many seconds to look again without a wake."""
        now_ns = self._clock.now_ns()
        self._lanes = {app_id: lane for app_id, lane in self._lanes.items() if not lane.is_idle}
        for app_id, lane in self._lanes.items():
            await self._look_at_settings(app_id, lane)
        full = [app_id for app_id, lane in self._lanes.items() if not lane.free(now_ns)]
        limit = _PARALLEL_WRITES + len(self._tasks)

        async def read(connection: AsyncConnection) -> tuple[Sequence[ManifestRow], int | None]:
            rows = await manifests.due(connection, now_ns, without=full, limit=limit)
            return rows, await manifests.earliest(connection, now_ns)

        rows, earliest_ns = await self._database.read(read)
        for row in rows:
            if len(self._tasks) >= _PARALLEL_WRITES:
                break
            lane = self._lanes.setdefault(row.app_id, Lane())
            if row.task_id not in self._tasks and lane.free(now_ns):
                self._start(row, lane)
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        waits = [lane.next_ns for lane in self._lanes.values() if lane.next_ns > now_ns]
        if earliest_ns is not None:
            waits.append(earliest_ns)
        return max(0.0, (min([next_ns, *waits]) - now_ns) / NANOSECONDS)

    async def _look_at_settings(self, app_id: str, lane: Lane) -> None:
        """With new settings trouble may be over."""
        if lane.trouble is None:
            return
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        if application.revision != lane.revision:
            lane.revision = application.revision
            await self.retry_now(app_id)

    def _start(self, row: ManifestRow, lane: Lane) -> None:
        lane.in_hand.add(row.task_id)
        task = asyncio.create_task(self._write(row, lane), name=f"manifest-{row.task_id}")
        self._tasks[row.task_id] = task

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.pop(row.task_id, None)
            lane.in_hand.discard(row.task_id)
            if not task.cancelled() and (error := task.exception()):
                _log.error("manifest_lost", app_id=row.app_id, task_id=row.task_id, exc_info=error)
                lane.failed(_internal(error), self._clock.now_ns(), self._random)
            self._wake.set()

        task.add_done_callback(done)

    async def _write(self, row: ManifestRow, lane: Lane) -> None:
        try:
            await self._attempt(row, lane)
        except StoreError as error:
            await self._delay(row, lane, error)
        except Exception as error:
            _log.exception("manifest_failed", app_id=row.app_id, task_id=row.task_id)
            await self._delay(row, lane, _internal(error))
        else:
            lane.succeeded()

    async def _attempt(self, row: ManifestRow, lane: Lane) -> None:
        """Puts the manifest as of now, and stores that it is written. Raises StoreError."""
        begun_ns = self._clock.monotonic_ns()

        async def read(connection: AsyncConnection) -> _Snapshot | None:
            # First, so that whatever changes while the rest is read is one change more than this one has.
            found = await manifests.find(connection, row.app_id, row.task_id)
            if found is None:
                return None
            application = await applications.get(connection, row.app_id)
            return _Snapshot(found, application, await history_of_task(connection, row.app_id, row.task_id))

        snapshot = await self._database.scan(read)
        if snapshot is None:
            return
        lane.revision = snapshot.application.revision
        try:
            store = self._stores.of_application(snapshot.application)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error
        _, prefix = self._stores.place(snapshot.application)
        history = snapshot.history
        key = manifest_key(prefix, row.app_id, history.task.room_id, row.task_id)
        complete_ns = self._clock.now_ns()
        data, sha256 = await _in_thread_if(
            len(history.segments) > _SEGMENTS_AT_ONCE, lambda: self._document(history, key, complete_ns)
        )
        await store.put_bytes(key, data, CONTENT_TYPE)
        is_complete = is_finished(history)
        written = WrittenManifest(
            written=snapshot.row.wanted,
            is_complete=is_complete,
            store=store.identity,
            object_key=key,
            url=store.url(key),
            size_bytes=len(data),
            sha256=sha256,
            update_ns=complete_ns,
        )
        spent_ns = self._clock.monotonic_ns() - begun_ns
        next_ns = self._clock.now_ns() + max(self._interval_ns, round(spent_ns / _WORK_SHARE))

        async def finish(uow: UnitOfWork) -> bool:
            await uow.lock_application(row.app_id)
            before = await manifests.find(uow.connection, row.app_id, row.task_id)
            assert before is not None
            await manifests.written(uow, row.task_id, written, next_ns)
            if not is_complete or before.wanted != snapshot.row.wanted:
                return False
            return await complete_if_done(uow, row.app_id, row.task_id, complete_ns)

        is_completed = await self._database.write(finish)
        self._written += 1
        self._written_bytes += len(data)
        _log.log(
            logging.INFO if is_completed else logging.DEBUG,
            "task_completed" if is_completed else "manifest_written",
            app_id=row.app_id,
            task_id=row.task_id,
            store=store.identity,
            object_key=key,
            size_bytes=len(data),
        )

    def _document(self, history: TaskHistory, key: str, complete_ns: int) -> tuple[bytes, str]:
        manifest = build(
            history, object_key=key, service_version=self._service_version, complete_ns=complete_ns
        )
        data = encode(manifest)
        return data, hashlib.sha256(data).hexdigest()

    async def _delay(self, row: ManifestRow, lane: Lane, error: StoreError) -> None:
        self._failed_attempts += 1
        next_ns = lane.failed(error, self._clock.now_ns(), self._random)
        _log.warning(
            "manifest_delayed",
            app_id=row.app_id,
            task_id=row.task_id,
            error_code=error.code,
            error=error.message,
        )
        await self._database.write(
            lambda uow: manifests.delay(uow, row.task_id, next_ns),
            name="manifest.writer.ManifestWriter.delay",
        )


async def _in_thread_if(is_large: bool, work: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
    return await asyncio.to_thread(work) if is_large else work()


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
