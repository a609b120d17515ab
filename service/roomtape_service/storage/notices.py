"""What watchers are told of segments that wait for their stores, and of the stores themselves."""

from collections.abc import Sequence

import structlog

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.database import lanes, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow, find_segment, segment_message
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import segment_event
from roomtape_service.storage.store import StoreError

__all__ = ["GivenUp", "Notices", "store_warning", "upload_event"]

_log = structlog.get_logger(__name__)


class GivenUp(Exception):
    """The file is not to be uploaded any more; its id. Whoever gave it up takes its traces from the store."""


class Notices:
    """Keeps in memory only of which errors each waiting segment's watchers were told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: dict[str, set[str]] = {}

    async def delay(
        self, row: SegmentRow, error: StoreError, next_ns: int, *, failing_store: str, is_warning: bool
    ) -> None:
        """An attempt failed; the next is due at `next_ns`. `is_warning`: the application is warned as well.

        `failing_store`: the application's first store, if it was this that took nothing; else "". Raises GivenUp.
        """
        _log.warning(
            "segment_upload_delayed",
            app_id=row.app_id,
            task_id=row.task_id,
            file_id=row.file_id,
            error_code=error.code,
            error=error.message,
        )
        is_news = self._is_news(row, error)

        async def delay(unit: UnitOfWork) -> None:
            await unit.lock_application(row.app_id)
            if not await uploads.delay_upload(unit.connection, row.file_id, next_ns):
                raise GivenUp(row.file_id)
            if failing_store:
                await lanes.fails(unit.connection, row.app_id, failing_store, unit.now_ns)
            if is_news:
                await unit.append(await _delayed_event(unit, row, error))
            if is_warning:
                await unit.append(_waiting_warning(row.app_id, error))

        await self._database.write(delay)
        self._remember(row, error)

    async def tell(self, rows: Sequence[SegmentRow], error: StoreError, now_ns: int) -> bool:
        """Segments of one application wait for what another one failed with. Returns whether that was news to any.

        Those that it was news to are due at `now_ns`.
        """
        news = [row for row in rows if self._is_news(row, error)]
        if not news:
            return False

        async def tell(unit: UnitOfWork) -> None:
            await unit.lock_application(news[0].app_id)
            await uploads.postpone_uploads(unit.connection, [row.file_id for row in news], now_ns)
            for row in news:
                await unit.append(await _delayed_event(unit, row, error))

        await self._database.write(tell)
        for row in news:
            self._remember(row, error)
        return True

    async def fail(self, app_id: str, error: StoreError, *, failing_store: str, is_warning: bool) -> None:
        """A part of a file that grows was not taken."""
        _log.warning("part_delayed", app_id=app_id, error_code=error.code, error=error.message)

        async def fail(unit: UnitOfWork) -> None:
            await unit.lock_application(app_id)
            if failing_store:
                await lanes.fails(unit.connection, app_id, failing_store, unit.now_ns)
            if is_warning:
                await unit.append(_waiting_warning(app_id, error))

        await self._database.write(fail)

    async def switch(self, app_id: str, first: str, second: str, error: StoreError) -> None:
        """Segments go to the secondary store from now on, and those that wait are due. Told once."""
        text = f"Segments go to the secondary store {second} until {first} takes them again. {error.message}"

        async def switch(unit: UnitOfWork) -> bool:
            await unit.lock_application(app_id)
            is_news = await lanes.use_secondary(unit.connection, app_id)
            if is_news:
                await uploads.hasten_uploads(unit.connection, app_id)
                await unit.append(store_warning(app_id, text))
            return is_news

        if await self._database.write(switch):
            _log.warning(
                "secondary_store_used", app_id=app_id, first=first, second=second, error_code=error.code
            )

    def forget(self, file_id: str) -> None:
        """Nobody waits for the file any more."""
        self._told.pop(file_id, None)

    def _is_news(self, row: SegmentRow, error: StoreError) -> bool:
        return error.code not in self._told.get(row.file_id, ())

    def _remember(self, row: SegmentRow, error: StoreError) -> None:
        self._told.setdefault(row.file_id, set()).add(error.code)


async def upload_event(
    unit: UnitOfWork, event_type: event_pb2.EventType.ValueType, row: SegmentRow
) -> event_pb2.Event:
    """An event with the segment as it is now."""
    changed = await find_segment(unit.connection, row.app_id, row.file_id)
    assert changed is not None
    return segment_event(event_type, row.app_id, segment_message(changed))


def store_warning(app_id: str, message: str) -> event_pb2.Event:
    """A WARNING of an application's store."""
    reason = error_pb2.ERROR_REASON_STORE_UNAVAILABLE
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_WARNING,
        app_id=app_id,
        warning=event_pb2.WarningDetail(reason=reason, message=message),
    )


def _waiting_warning(app_id: str, error: StoreError) -> event_pb2.Event:
    text = f"Segments are kept on the server until the store takes them. {error.message}"
    return store_warning(app_id, text)


async def _delayed_event(unit: UnitOfWork, row: SegmentRow, error: StoreError) -> event_pb2.Event:
    event = await upload_event(unit, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED, row)
    event.segment.error_code = error.code
    event.segment.message = error.message
    return event
