"""One segment's way into its store: what is written to the database and said before, after, and when it fails."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, media_pb2, segment_pb2
from roomtape_service.database import applications, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.segments import (
    SegmentRow,
    find_segment,
    segment_message,
    segments_of_recording,
)
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import segment_event
from roomtape_service.storage.lane import Lane
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import Store, StoreError, StoreRefused
from roomtape_service.storage.stores import Stores

__all__ = ["CONTENT_TYPES", "Attempts", "GivenUp", "OnUploaded", "RemoveSpooled"]

CONTENT_TYPES: Mapping[int, str] = {
    media_pb2.CONTAINER_MP3: "audio/mpeg",
    media_pb2.CONTAINER_OGG: "audio/ogg",
    media_pb2.CONTAINER_WAV: "audio/wav",
}

OnUploaded = Callable[[UnitOfWork, str, str], Awaitable[None]]
"""Called with application and task inside the unit of work that makes a segment UPLOADED."""

_log = structlog.get_logger(__name__)


class GivenUp(Exception):
    """The file is not to be uploaded any more; its id. Whoever gave it up takes its traces from the store."""


class RemoveSpooled(Protocol):
    """`spool.cleaning.remove_stored`: removes a media file, and with a segment's last one its journal."""

    def __call__(self, path: Path, *, is_whole_segment: bool) -> None: ...


class Attempts:
    """Carries out attempts; keeps in memory only of which errors each waiting segment's watchers were told."""

    def __init__(
        self, database: Database, stores: Stores, on_uploaded: OnUploaded, remove_spooled: RemoveSpooled
    ) -> None:
        self._database = database
        self._stores = stores
        self._on_uploaded = on_uploaded
        self._remove_spooled = remove_spooled
        self._told: dict[str, set[str]] = {}

    async def upload(self, row: SegmentRow, lane: Lane) -> None:
        """Puts the segment, then makes it UPLOADED in one unit of work with its event. Raises StoreError."""
        application = await self._database.read(lambda connection: applications.get(connection, row.app_id))
        lane.revision = application.revision
        try:
            store = self._stores.of_application(application)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error
        key = await self._begin(row, store)
        assert row.spool_path is not None
        content_type = CONTENT_TYPES[row.container]
        await store.put(
            key, Path(row.spool_path), row.sha256, content_type, parallel_parts=lane.parallel_parts
        )
        url = store.url(key)

        async def finish(unit: UnitOfWork) -> None:
            await unit.lock_application(row.app_id)
            if not await uploads.finish_upload(unit.connection, row.file_id, url):
                raise GivenUp(row.file_id)
            await unit.append(await _segment_event(unit, _uploaded_type(row), row))
            await self._on_uploaded(unit, row.app_id, row.task_id)

        await self._database.write(finish)
        self._told.pop(row.file_id, None)
        _log.info(
            "segment_uploaded",
            app_id=row.app_id,
            task_id=row.task_id,
            file_id=row.file_id,
            store=store.identity,
            object_key=key,
            size_bytes=row.size_bytes,
        )

    async def delay(self, row: SegmentRow, error: StoreError, next_ns: int, *, is_warning: bool) -> None:
        """An attempt failed; the next is due at `next_ns`. `is_warning`: the application is warned as well."""
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
            if is_news:
                await unit.append(await _delayed_event(unit, row, error))
            if is_warning:
                await unit.append(_warning(row.app_id, error))

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

    async def remove_file(self, row: SegmentRow) -> None:
        """Removes the spool file of an UPLOADED segment. What can't be removed is left for the next start."""
        if row.spool_path is None:
            return

        async def siblings(connection: AsyncConnection) -> Sequence[SegmentRow]:
            return await segments_of_recording(connection, row.recording_id, row.segment_id)

        rows = await self._database.read(siblings)
        # What was joined has no journal.
        is_whole = not row.joined and all(
            sibling.state >= segment_pb2.SEGMENT_STATE_UPLOADED for sibling in rows
        )
        try:
            await asyncio.to_thread(self._remove_spooled, Path(row.spool_path), is_whole_segment=is_whole)
        except OSError as error:
            _log.warning("spool_file_not_removed", file_id=row.file_id, path=row.spool_path, error=str(error))
            return
        await self._database.write(
            lambda unit: uploads.forget_spool_file(unit.connection, row.file_id),
            name="storage.attempt.Attempts.remove_file",
        )

    async def _begin(self, row: SegmentRow, store: Store) -> str:
        """Marks the segment UPLOADING, to this store. Returns its key there."""
        if row.state == segment_pb2.SEGMENT_STATE_UPLOADING and row.store == store.identity:
            return row.object_key

        async def begin(unit: UnitOfWork) -> str:
            await unit.lock_application(row.app_id)
            key = row.object_key
            if row.store != store.identity:
                key = await uploads.move_to_store(unit.connection, row, store.identity)
            if not await uploads.begin_upload(unit.connection, row.file_id):
                raise GivenUp(row.file_id)
            return key

        return await self._database.write(begin)

    def _is_news(self, row: SegmentRow, error: StoreError) -> bool:
        return error.code not in self._told.get(row.file_id, ())

    def _remember(self, row: SegmentRow, error: StoreError) -> None:
        self._told.setdefault(row.file_id, set()).add(error.code)


async def _delayed_event(unit: UnitOfWork, row: SegmentRow, error: StoreError) -> event_pb2.Event:
    event = await _segment_event(unit, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED, row)
    event.segment.error_code = error.code
    event.segment.message = error.message
    return event


async def _segment_event(
    unit: UnitOfWork, event_type: event_pb2.EventType.ValueType, row: SegmentRow
) -> event_pb2.Event:
    changed = await find_segment(unit.connection, row.app_id, row.file_id)
    assert changed is not None
    return segment_event(event_type, row.app_id, segment_message(changed))


def _uploaded_type(row: SegmentRow) -> event_pb2.EventType.ValueType:
    return event_pb2.EVENT_TYPE_SEGMENTS_JOINED if row.joined else event_pb2.EVENT_TYPE_SEGMENT_UPLOADED


def _warning(app_id: str, error: StoreError) -> event_pb2.Event:
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_WARNING,
        app_id=app_id,
        warning=event_pb2.WarningDetail(
            reason=error_pb2.ERROR_REASON_STORE_UNAVAILABLE,
            message=f"Segments are kept on the server until the store takes them. {error.message}",
        ),
    )
