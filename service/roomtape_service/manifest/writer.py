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
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, lanes, manifests, removals
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.database import Database
from roomtape_service.database.history import TaskHistory, history_of_task
from roomtape_service.database.lanes import FailingLane
from roomtape_service.database.manifests import ManifestRow, WrittenManifest
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.manifest.content import build, is_finished, is_over
from roomtape_service.manifest.encoding import encode
from roomtape_service.manifest.sending import Way, put_document
from roomtape_service.rules.naming import manifest_key
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import StoreError, StoreRefused, StoreUnavailable
from roomtape_service.storage.stores import Destination, Destinations, Stores
from roomtape_service.tasks.completion import complete_if_done

__all__ = ["INTERVAL_SECONDS", "ManifestStatistics", "ManifestWriter"]

INTERVAL_SECONDS = 10.0
"""How often at most the manifest of a task is written while it runs."""

_LIBRARY_INTERVAL_SECONDS = 1.0
"""How often at most after the task, when files are joined, deleted or expire."""
_WORK_SHARE = 0.05
"""Of the time, at most so much goes into one manifest before its last, however large it is."""
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
    failing: FailingLane | None
    """Of segments: whether their first store takes nothing."""
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
            await self._attempt(row, way)
        except StoreError as error:
            await self._delay(row, way, error)
        except Exception as error:
            _log.exception("manifest_failed", app_id=row.app_id, task_id=row.task_id)
            failure = _internal(error)
            way.failed(way.first, failure, self._clock.now_ns(), self._random)
            await self._delay(row, way, failure)

    async def _attempt(self, row: ManifestRow, way: Way) -> None:
        """Puts the manifest as of now, and stores that it is written. Raises StoreError."""
        begun_ns = self._clock.monotonic_ns()
        snapshot = await self._database.scan(partial(_read, row))
        if snapshot is None or snapshot.row.written >= snapshot.row.wanted:
            # It was written after it was found due.
            return
        if is_over(snapshot.history):
            await self._take_away(snapshot.row)
            return
        way.revision = snapshot.application.revision
        try:
            places = self._stores.destinations(snapshot.application)
        except SecretKeyError as error:
            refused = StoreRefused("CredentialsUnreadable", str(error))
            way.failed(way.first, refused, self._clock.now_ns(), self._random)
            raise refused from error
        history = snapshot.history
        complete_ns = self._clock.now_ns()
        is_complete = is_finished(history)
        data, sha256, place, key = await self._put(snapshot, way, places, complete_ns)
        written = WrittenManifest(
            written=snapshot.row.wanted,
            is_complete=is_complete,
            store=place.store.identity,
            object_key=key,
            url=place.store.url(key),
            size_bytes=len(data),
            sha256=sha256,
            update_ns=complete_ns,
        )
        spent_ns = self._clock.monotonic_ns() - begun_ns
        interval_ns = round(_LIBRARY_INTERVAL_SECONDS * NANOSECONDS) if is_complete else self._interval_ns
        next_ns = self._clock.now_ns() + max(interval_ns, round(spent_ns / _WORK_SHARE))

        async def finish(uow: UnitOfWork) -> bool:
            await uow.lock_application(row.app_id)
            before = await manifests.find(uow.connection, row.app_id, row.task_id)
            assert before is not None
            await manifests.written(uow, row.task_id, written, next_ns)
            if before.object_key and (before.store, before.object_key) != (written.store, key):
                await removals.add(uow, row.app_id, before.store, before.object_key)
            await removals.done(uow, written.store, [key])
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
            store=written.store,
            object_key=key,
            size_bytes=len(data),
        )

    async def _take_away(self, row: ManifestRow) -> None:
        """The last file of the task has gone from its store; so does what tells of it."""

        async def forget(uow: UnitOfWork) -> None:
            await uow.lock_application(row.app_id)
            before = await manifests.find(uow.connection, row.app_id, row.task_id)
            assert before is not None
            await manifests.taken_away(uow, row.task_id, row.wanted)
            if before.object_key:
                await removals.add(uow, row.app_id, before.store, before.object_key)

        await self._database.write(forget)
        _log.info("manifest_taken_away", app_id=row.app_id, task_id=row.task_id)

    async def _put(
        self, snapshot: _Snapshot, way: Way, places: Destinations, complete_ns: int
    ) -> tuple[bytes, str, Destination, str]:
        """Puts the document where it goes. Raises StoreError."""
        history = snapshot.history
        ways = way.choices(places, snapshot.failing, self._clock.now_ns())
        while True:
            place, lane = ways.pop(0)
            task = history.task
            key = manifest_key(place.prefix, task.app_id, task.room_id, task.task_id)
            make = partial(self._document, history, key, complete_ns)
            data, sha256 = await _in_thread_if(len(history.segments) > _SEGMENTS_AT_ONCE, make)
            try:
                await put_document(place.store, key, data, sha256)
            except StoreError as error:
                way.failed(lane, error, self._clock.now_ns(), self._random, places)
                if not ways:
                    raise
                continue
            way.succeeded(lane)
            return data, sha256, place, key

    def _document(self, history: TaskHistory, key: str, complete_ns: int) -> tuple[bytes, str]:
        version = self._service_version
        data = encode(build(history, object_key=key, service_version=version, complete_ns=complete_ns))
        return data, hashlib.sha256(data).hexdigest()

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


async def _read(row: ManifestRow, connection: AsyncConnection) -> _Snapshot | None:
    # First, so that whatever changes while the rest is read is one change more than this one has.
    found = await manifests.find(connection, row.app_id, row.task_id)
    if found is None:
        return None
    application = await applications.get(connection, row.app_id)
    failing = await lanes.failing(connection, row.app_id)
    history = await history_of_task(connection, row.app_id, row.task_id)
    return _Snapshot(found, application, failing, history)


async def _in_thread_if(is_large: bool, work: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
    return await asyncio.to_thread(work) if is_large else work()


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
