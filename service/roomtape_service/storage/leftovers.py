"""Multipart uploads that go on no more: aborted until their stores confirmed, since vendors charge for their parts.

1. They are left when a file goes to another store, when it is lost or abandoned, and when its store forgot of it.
2. A store that is down is asked for ever.
3. Where the settings lead to the store no more, or it refuses, somebody has to act. After a month of that they are
   given up, and the application is told which they are.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, multiparts
from roomtape_service.database.database import Database
from roomtape_service.database.multiparts import DueLeft, MultipartRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.lane import wait_seconds
from roomtape_service.storage.multipart import abort_begun
from roomtape_service.storage.notices import store_warning
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import Store, StoreError, StoreRefused
from roomtape_service.storage.stores import Stores

__all__ = ["Leftovers"]

_AT_ONCE = 16
# What others put into the database is found by looking.
_LOOK_SECONDS = 10.0
# What settings lead to no more is looked for again now and then: they may come back.
_UNREACHABLE_SECONDS = 3600.0
# Since they were begun. By then a bucket's own rule, where it has one, has swept them.
_GIVE_UP_NS = 30 * 24 * 3600 * NANOSECONDS
# Told in one warning, of which the first few by name.
_GIVEN_UP_AT_ONCE = 1000
_NAMED_KEYS = 10

_log = structlog.get_logger(__name__)


class Leftovers:
    """Aborts until it is closed. `run` owns everything that changes."""

    def __init__(self, database: Database, stores: Stores, clock: Clock, randomness: random.Random) -> None:
        self._database = database
        self._stores = stores
        self._clock = clock
        self._random = randomness
        self._failures: dict[tuple[str, str], int] = {}
        self._wake = asyncio.Event()
        self._is_hastened = False

    async def run(self) -> None:
        """Aborts until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                seconds = await self._work()
            except Exception:
                _log.exception("multiparts_not_read")
                seconds = _LOOK_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def wake(self) -> None:
        """Something may be left. May be called at any time."""
        self._wake.set()

    def retry_now(self) -> None:
        """What failed is due: the settings of an application changed."""
        self._is_hastened = True
        self._wake.set()

    async def _work(self) -> float:
        """Aborts what is due. Returns after how many seconds to look again without a wake."""
        if self._is_hastened:
            self._is_hastened = False
            await self._database.write(lambda unit: multiparts.hasten_left(unit.connection), name=_HASTEN)
        now_ns = self._clock.now_ns()
        places = await self._database.read(multiparts.due_left)
        due = [place for place in places if place.due_ns <= now_ns]
        # A store that hangs holds up no other for longer than its calls may take.
        again = await asyncio.gather(*(self._abort_due(place, now_ns) for place in due))
        times = [*again, *(place.due_ns for place in places if place.due_ns > now_ns)]
        next_ns = min(times, default=now_ns + round(_LOOK_SECONDS * NANOSECONDS))
        return min(_LOOK_SECONDS, max(0.0, (next_ns - self._clock.now_ns()) / NANOSECONDS))

    async def _abort_due(self, place: DueLeft, now_ns: int) -> int:
        """Returns when the place is to be looked at again."""
        rows = await self._database.read(
            lambda connection: multiparts.left_of(connection, place.app_id, place.store, now_ns, _AT_ONCE)
        )
        where = (place.app_id, place.store)
        try:
            store = await self._store(place)
            if store is None:
                if await self._give_up(place, now_ns, "The settings lead there no more."):
                    return now_ns
                return await self._postpone(place, now_ns, _UNREACHABLE_SECONDS)
            for row in rows:
                await self._abort(row, store)
        except StoreError as error:
            if isinstance(error, StoreRefused) and await self._give_up(place, now_ns, error.message):
                return now_ns
            self._failures[where] = self._failures.get(where, 0) + 1
            _log.warning(
                "multipart_not_aborted",
                app_id=place.app_id,
                store=place.store,
                error_code=error.code,
                error=error.message,
            )
            return await self._postpone(
                place, now_ns, wait_seconds(error, self._failures[where], self._random)
            )
        self._failures.pop(where, None)
        return now_ns

    async def _abort(self, row: MultipartRow, store: Store) -> None:
        if row.upload_id:
            await store.abort_parts(row.object_key, row.upload_id)
        else:
            await abort_begun(self._database, store, row.object_key)
        await self._database.write(
            lambda unit: multiparts.forget(unit.connection, row.multipart_id), name=_FORGET
        )
        _log.info("multipart_aborted", app_id=row.app_id, store=row.store, object_key=row.object_key)

    async def _give_up(self, place: DueLeft, now_ns: int, reason: str) -> bool:
        """Whether any were old enough. The application is told in the unit that forgets them."""

        async def give_up(unit: UnitOfWork) -> Sequence[MultipartRow]:
            await unit.lock_application(place.app_id)
            rows = await multiparts.left_before(
                unit.connection, place.app_id, place.store, now_ns - _GIVE_UP_NS, _GIVEN_UP_AT_ONCE
            )
            for row in rows:
                await multiparts.forget(unit.connection, row.multipart_id)
            if rows:
                await unit.append(store_warning(place.app_id, _given_up_text(place.store, rows, reason)))
            return rows

        rows = await self._database.write(give_up)
        for row in rows:
            _log.warning(
                "multipart_given_up",
                app_id=row.app_id,
                store=row.store,
                object_key=row.object_key,
                upload_id=row.upload_id,
                reason=reason,
            )
        return bool(rows)

    async def _store(self, place: DueLeft) -> Store | None:
        application = await self._database.read(
            lambda connection: applications.find(connection, place.app_id)
        )
        if application is None:
            return None
        try:
            return self._stores.of_file(application, place.store)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error

    async def _postpone(self, place: DueLeft, now_ns: int, seconds: float) -> int:
        next_ns = now_ns + round(seconds * NANOSECONDS)
        await self._database.write(
            lambda unit: multiparts.postpone_left(unit.connection, place.app_id, place.store, next_ns),
            name=_POSTPONE,
        )
        return next_ns


def _given_up_text(store: str, rows: Sequence[MultipartRow], reason: str) -> str:
    keys = [row.object_key for row in rows[:_NAMED_KEYS]]
    more = f", and {len(rows) - len(keys)} more" if len(rows) > len(keys) else ""
    return (
        f"Unfinished multipart uploads in {store} could not be aborted for a month, and are given up. {reason} Their "
        f"parts may cost money until they are aborted there: {', '.join(keys)}{more}."
    )


_HASTEN = "storage.leftovers.Leftovers.hasten"
_FORGET = "storage.leftovers.Leftovers.forget"
_POSTPONE = "storage.leftovers.Leftovers.postpone"
