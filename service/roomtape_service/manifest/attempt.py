"""One manifest on its way into its store: the task as it is at one moment, the document, and the unit that follows.

The last one of a task says already that it is COMPLETED, and the unit that stores that it is written completes the
task, unless something changed meanwhile: then the next attempt does.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

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
from roomtape_service.storage.store import StoreError, StoreRefused
from roomtape_service.storage.stores import Destination, Destinations, Stores
from roomtape_service.tasks.completion import complete_if_done

__all__ = ["ManifestAttempts"]

_LIBRARY_INTERVAL_SECONDS = 1.0
"""How often at most after the task, when files are joined, deleted or expire."""
_WORK_SHARE = 0.05
"""Of the time, at most so much goes into one manifest before its last, however large it is."""
_SEGMENTS_AT_ONCE = 100
"""With more, the document is made in a thread: it takes longer than the event loop should stand still."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A task at one moment, with what its manifest has to tell of."""

    row: ManifestRow
    application: ApplicationRecord
    failing: FailingLane | None
    """Of segments: whether their first store takes nothing."""
    history: TaskHistory


class ManifestAttempts:
    """Carries out attempts; holds nothing between them."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        clock: Clock,
        randomness: random.Random,
        *,
        service_version: str,
        interval_ns: int,
    ) -> None:
        """`interval_ns`: how often at most the manifest of a task is written while it runs."""
        self._database = database
        self._stores = stores
        self._clock = clock
        self._random = randomness
        self._service_version = service_version
        self._interval_ns = interval_ns

    async def write(self, row: ManifestRow, way: Way) -> int | None:
        """Puts the manifest as of now, and stores that it is written. Returns its bytes; None for one that is not put.

        Raises StoreError.
        """
        begun_ns = self._clock.monotonic_ns()
        snapshot = await self._database.scan(partial(_read, row))
        if snapshot is None or snapshot.row.written >= snapshot.row.wanted:
            # It was written after it was found due.
            return None
        if is_over(snapshot.history):
            await self._take_away(snapshot.row)
            return None
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
        _log.log(
            logging.INFO if is_completed else logging.DEBUG,
            "task_completed" if is_completed else "manifest_written",
            app_id=row.app_id,
            task_id=row.task_id,
            store=written.store,
            object_key=key,
            size_bytes=len(data),
        )
        return len(data)

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
