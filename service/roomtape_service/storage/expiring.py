"""Warns before storage credentials expire that nobody renews."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import error_pb2, event_pb2, storage_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, told
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.database import Database
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.credentials import CredentialSources

__all__ = ["WARN_AHEAD_NS", "ExpiringCredentials"]

WARN_AHEAD_NS = 600 * NANOSECONDS
"""Time enough for a person to send new ones."""
_INTERVAL_SECONDS = 15.0

_log = structlog.get_logger(__name__)


class ExpiringCredentials:
    """Tells an application once of each time at which its credentials expire, from `WARN_AHEAD_NS` before.

    Looks at what the settings say (`expire_time`), and at sources that can't be read at present. What was told is kept
    in the database, so that no restart tells it again.
    """

    def __init__(
        self,
        database: Database,
        sources: CredentialSources,
        clock: Clock,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._database = database
        self._sources = sources
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._told: set[tuple[str, str, int]] = set()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Ticks until `aclose`; what goes wrong in a tick is logged and tried again in the next."""
        self._stopped.clear()
        try:
            while not self._is_closing:
                self._wake.clear()
                try:
                    await self.tick()
                except Exception:
                    _log.exception("expiring_credentials_not_read")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_seconds):
                        await self._wake.wait()
        finally:
            self._stopped.set()

    async def tick(self) -> None:
        """Looks at all applications once."""
        now_ns = self._clock.now_ns()
        current: set[tuple[str, str, int]] = set()
        for app_id in await self._database.read(applications.all_ids):
            record = await self._database.read(partial(applications.find, app_id=app_id))
            if record is None:
                continue
            for name, expire_ns in self._expiring(record):
                if expire_ns - now_ns <= WARN_AHEAD_NS:
                    current.add((app_id, name, expire_ns))
                    await self._tell(app_id, name, expire_ns)
        self._told &= current

    def wake(self) -> None:
        """Settings changed: they are looked at now."""
        self._wake.set()

    async def aclose(self) -> None:
        """Ends `run`, and waits for it. Idempotent."""
        self._is_closing = True
        self.wake()
        await self._stopped.wait()

    def _expiring(self, record: ApplicationRecord) -> Iterator[tuple[str, int]]:
        settings = storage_pb2.StorageSettings.FromString(record.storage)
        # Secrets are sealed here, and not looked at.
        for place, store in (("the store", settings), ("the secondary store", settings.secondary)):
            if store.WhichOneof("store") != "object_store":
                continue
            credentials = store.object_store.credentials
            if credentials.HasField("expire_time"):
                expire_time = credentials.expire_time
                yield place, expire_time.seconds * NANOSECONDS + expire_time.nanos
            elif credentials.source and (until_ns := self._sources.failing_until_ns(credentials.source)):
                yield f"{place}, of the source {credentials.source!r} that can't be read,", until_ns

    async def _tell(self, app_id: str, place: str, expire_ns: int) -> None:
        if (app_id, place, expire_ns) in self._told:
            return

        async def tell(unit: UnitOfWork) -> bool:
            await unit.lock_application(app_id)
            if not await told.is_news(unit, app_id, f"credentials of {place}", str(expire_ns)):
                return False
            await unit.append(_warning(app_id, place, expire_ns))
            return True

        if await self._database.write(tell):
            _log.warning("credentials_expiring", app_id=app_id, expire_ns=expire_ns)
        self._told.add((app_id, place, expire_ns))


def _warning(app_id: str, place: str, expire_ns: int) -> event_pb2.Event:
    expire_time = Timestamp()
    expire_time.FromNanoseconds(expire_ns)
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_WARNING,
        app_id=app_id,
        warning=event_pb2.WarningDetail(
            reason=error_pb2.ERROR_REASON_CREDENTIALS_EXPIRING,
            message=f"The credentials for {place} expire at {expire_time.ToJsonString()}. After that, files wait on "
            "the server until there are new ones.",
        ),
    )
