"""Objects go from their stores once their files have gone from the library.

1. What is to go stands in the database alone, since the unit of work that gave up the file.
2. A row goes when the store confirmed. After a crash in between, an object is removed that is not there any more.
3. A store that does not answer is tried again for ever, after random waits of up to a minute, or of minutes where it
   takes somebody's hand, which the application is told; one object that a store does not give up holds back no other.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, removals, told
from roomtape_service.database.database import Database
from roomtape_service.database.removals import DuePlace, RemovalRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.lane import wait_seconds
from roomtape_service.storage.notices import store_warning
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import ObjectMissing, Store, StoreError, StoreRefused
from roomtape_service.storage.stores import Stores

__all__ = ["NOW_SECONDS", "Removals"]

NOW_SECONDS = 3.0
"""How long a caller waits for the store."""

# Wakes come from this process; what others put into the database is found by looking.
_LOOK_SECONDS = 10.0
_PARALLEL_PLACES = 4
_PARALLEL_OBJECTS = 8

_log = structlog.get_logger(__name__)


class Removals:
    """Removes until it is closed. `run` owns everything that changes."""

    def __init__(
        self, database: Database, stores: Stores, clock: Clock, *, randomness: random.Random | None = None
    ) -> None:
        self._database = database
        self._stores = stores
        self._clock = clock
        self._random = randomness or random.Random()
        self._places: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._hasten = False
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Removes what is due until `aclose`; returns then."""
        self._runner = asyncio.current_task()
        try:
            while not self._is_closing:
                self._wake.clear()
                try:
                    seconds = await self._start_due()
                except Exception:
                    _log.exception("removals_not_read")
                    seconds = _LOOK_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            tasks = list(self._places.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There may be something to remove."""
        self._wake.set()

    def retry_now(self) -> None:
        """What failed is due: the settings of an application changed."""
        self._hasten = True
        self._wake.set()

    async def remove_now(self, app_id: str, store: str, object_key: str) -> bool:
        """Tries at once, for `NOW_SECONDS` at most. False: it goes later."""
        try:
            async with asyncio.timeout(NOW_SECONDS):
                await self._remove(await self._store(app_id, store), store, object_key)
        except (StoreError, TimeoutError) as error:
            _log.info("removal_waits", app_id=app_id, store=store, object_key=object_key, error=str(error))
            self.wake()
            return False
        await self._done(store, [object_key])
        return True

    async def aclose(self) -> None:
        """Ends `run`, and waits. What was not removed is removed after the next start. Idempotent."""
        self._is_closing = True
        self.wake()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    async def _start_due(self) -> float:
        """Starts on the places where something is due. Returns after how many seconds to look again."""
        if self._hasten:
            self._hasten = False
            await self._database.write(removals.hasten, name="library.removing.Removals.hasten")
        now_ns = self._clock.now_ns()
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        for place in await self._database.scan(removals.places):
            if (place.app_id, place.store) in self._places:
                continue
            if place.due_ns > now_ns:
                next_ns = min(next_ns, place.due_ns)
            elif len(self._places) < _PARALLEL_PLACES:
                self._start(place)
        return (next_ns - now_ns) / NANOSECONDS

    def _start(self, place: DuePlace) -> None:
        key = (place.app_id, place.store)
        task = asyncio.create_task(self._clear(place), name=f"removing-{place.app_id}-{place.store}")
        self._places[key] = task

        def done(task: asyncio.Task[None]) -> None:
            del self._places[key]
            if not task.cancelled() and (error := task.exception()):
                _log.error("removing_failed", app_id=place.app_id, store=place.store, exc_info=error)
                return
            self.wake()

        task.add_done_callback(done)

    async def _clear(self, place: DuePlace) -> None:
        """Removes what is due in one place; stops when its store takes nothing."""
        while not self._is_closing:
            now_ns = self._clock.now_ns()

            async def read(connection: AsyncConnection, now_ns: int = now_ns) -> Sequence[RemovalRow]:
                return await removals.due(connection, place.app_id, place.store, now_ns, _PARALLEL_OBJECTS)

            rows = await self._database.read(read)
            if not rows:
                return
            try:
                store = await self._store(place.app_id, place.store)
            except StoreError as error:
                await self._delay(place, [(row, error) for row in rows], is_down=True)
                return
            results = await asyncio.gather(*(self._try(store, row) for row in rows))
            failed = [(row, error) for row, error in zip(rows, results, strict=True) if error is not None]
            removed = [row.object_key for row, error in zip(rows, results, strict=True) if error is None]
            if removed:
                await self._done(place.store, removed)
            if failed:
                await self._delay(place, failed, is_down=not removed)
            if not removed:
                return

    async def _try(self, store: Store, row: RemovalRow) -> StoreError | None:
        try:
            await self._remove(store, row.store, row.object_key)
        except StoreError as error:
            return error
        return None

    async def _remove(self, store: Store, identity: str, object_key: str) -> None:
        async def read(connection: AsyncConnection) -> bool:
            return await removals.is_needed(connection, identity, object_key)

        if await self._database.read(read):
            # No unit of work gives up a file and leaves its row alive.
            _log.error("removal_refused", store=identity, object_key=object_key)
            return
        with suppress(ObjectMissing):
            await store.delete(object_key)
        _log.info("object_removed", store=identity, object_key=object_key)

    async def _store(self, app_id: str, identity: str) -> Store:
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        try:
            store = self._stores.of_file(application, identity)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error
        if store is None:
            raise StoreRefused(
                "StoreLeft", f"The settings of the application {app_id!r} lead no more to {identity}."
            )
        return store

    async def _done(self, store: str, object_keys: Sequence[str]) -> None:
        async def forget(uow: UnitOfWork) -> None:
            await removals.done(uow, store, object_keys)

        await self._database.write(forget)

    async def _delay(
        self, place: DuePlace, failed: Sequence[tuple[RemovalRow, StoreError]], *, is_down: bool
    ) -> None:
        now_ns = self._clock.now_ns()
        waits = [wait_seconds(error, row.attempts + 1, self._random) for row, error in failed]
        _, error = failed[0]
        _log.warning(
            "removal_delayed",
            app_id=place.app_id,
            store=place.store,
            objects=len(failed),
            error_code=error.code,
            error=error.message,
        )

        async def delay(uow: UnitOfWork) -> None:
            if isinstance(error, StoreRefused):
                # Who deleted files must know that they are still there, and only people can change it.
                await uow.lock_application(place.app_id)
                if await told.is_news(uow, place.app_id, f"removals from {place.store}", error.code):
                    text = f"Deleted and expired files stay in {place.store} for now. {error.message}"
                    await uow.append(store_warning(place.app_id, text))
            for (row, _), seconds in zip(failed, waits, strict=True):
                await removals.delay(uow, row.removal_id, now_ns + round(seconds * NANOSECONDS))
            if is_down:
                await removals.postpone(
                    uow, place.app_id, place.store, now_ns + round(min(waits) * NANOSECONDS)
                )

        await self._database.write(delay)
