"""One segment's way into its store: what is done and written to the database before, on the way, and after."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, media_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.database import applications, lanes, multiparts, tasks, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow, find_segment, segments_of_recording
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.rules.naming import moved
from roomtape_service.rules.retention import expire_ns
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.lane import Lane, Way
from roomtape_service.storage.multipart import Multiparts
from roomtape_service.storage.notices import GivenUp, store_warning, upload_event
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import StoreRefused
from roomtape_service.storage.stores import Destinations, Stores

__all__ = ["CONTENT_TYPES", "Attempts", "OnUploaded", "RemoveSpooled"]

CONTENT_TYPES: Mapping[int, str] = {
    media_pb2.CONTAINER_MP3: "audio/mpeg",
    media_pb2.CONTAINER_OGG: "audio/ogg",
    media_pb2.CONTAINER_WAV: "audio/wav",
    media_pb2.CONTAINER_AAC: "audio/aac",
    media_pb2.CONTAINER_M4A: "audio/mp4",
}

OnUploaded = Callable[[UnitOfWork, str, str], Awaitable[None]]
"""Called with application and task inside the unit of work that makes a segment UPLOADED."""

_TRIES_PARTS = 2

_UPLOADING = segment_pb2.SEGMENT_STATE_UPLOADING

_log = structlog.get_logger(__name__)


class RemoveSpooled(Protocol):
    """`spool.cleaning.remove_stored`: removes a media file, and with a segment's last one its journal."""

    def __call__(self, path: Path, *, is_whole_segment: bool) -> None: ...


class Attempts:
    """Carries out attempts; holds nothing between them."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        multipart: Multiparts,
        on_uploaded: OnUploaded,
        remove_spooled: RemoveSpooled,
    ) -> None:
        self._database = database
        self._stores = stores
        self._multipart = multipart
        # Stores that hang keep no more of the memory from those that do not.
        self._memory_of_tries = MemoryBudget(_TRIES_PARTS * multipart.part_bytes)
        self._on_uploaded = on_uploaded
        self._remove_spooled = remove_spooled

    async def destinations(self, app_id: str) -> tuple[int, Destinations]:
        """Where the application's segments go, and its revision that says so. Raises StoreRefused."""
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        try:
            return application.revision, self._stores.destinations(application)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error

    async def revision(self, app_id: str) -> int:
        """The application's: with another one, its stores may be others."""
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        return application.revision

    async def upload(self, row: SegmentRow, way: Way, lane: Lane) -> None:
        """Puts the segment by one of its lanes, then makes it UPLOADED in one unit of work with its event.

        Raises StoreError, GivenUp.
        """
        places = await self._places(row.app_id, way)
        place = places.second if lane is way.second and places.second is not None else places.first
        store = place.store
        is_whole = row.size_bytes <= self._multipart.part_bytes
        key = await self._begin(row, places, store.identity, is_whole=is_whole)
        assert row.spool_path is not None
        content_type = CONTENT_TYPES[row.container]
        share = self._share(lane)
        if is_whole:
            async with share.take(row.size_bytes):
                await store.put(key, Path(row.spool_path), row.sha256, content_type)
        else:
            await self._multipart.put(row, store, key, content_type, lane.parallel_parts, share)
        url = store.url(key)

        async def finish(unit: UnitOfWork) -> None:
            await unit.lock_application(row.app_id)
            expires_ns = await _expire_ns(unit, row)
            if not await uploads.finish_upload(unit.connection, row.file_id, url, expires_ns):
                raise GivenUp(row.file_id)
            multipart = await multiparts.find(unit.connection, row.file_id)
            if multipart is not None and not is_whole:
                await multiparts.forget(unit.connection, multipart.multipart_id)
            if lane is way.first and way.failing_ns is not None:
                await _tell_takes(unit, row.app_id, store.identity)
            await unit.append(await upload_event(unit, _uploaded_type(row), row))
            await self._on_uploaded(unit, row.app_id, row.task_id)

        await self._database.write(finish)
        _log.info(
            "segment_uploaded",
            app_id=row.app_id,
            task_id=row.task_id,
            file_id=row.file_id,
            store=store.identity,
            object_key=key,
            size_bytes=row.size_bytes,
        )

    async def send_settled(self, app_id: str, file_id: str, way: Way, checkpointed_bytes: int) -> bool:
        """Sends a part of a file that grows. Returns whether more can be sent now. Raises StoreError."""
        row = await self._database.read(lambda connection: find_segment(connection, app_id, file_id))
        if row is None or row.state != segment_pb2.SEGMENT_STATE_RECORDING:
            return False
        places = await self._places(app_id, way)
        store = places.first.store
        if row.store != store.identity:
            # It goes elsewhere when it is complete, under a name of its own there.
            return False
        content_type = CONTENT_TYPES[row.container]
        is_more = await self._multipart.send_settled(
            row, store, content_type, checkpointed_bytes, self._share(way.first)
        )
        if way.failing_ns is not None:

            async def take(unit: UnitOfWork) -> None:
                await unit.lock_application(app_id)
                await _tell_takes(unit, app_id, store.identity)

            await self._database.write(take)
        return is_more

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

    async def _places(self, app_id: str, way: Way) -> Destinations:
        """As `destinations`; keeps the way up with them."""
        way.revision, places = await self.destinations(app_id)
        way.leads_to(places.first.store.identity)
        return places

    def _share(self, lane: Lane) -> MemoryBudget:
        return self._memory_of_tries if lane.trouble else lane.memory

    async def _begin(self, row: SegmentRow, places: Destinations, store: str, *, is_whole: bool) -> str:
        """Marks the segment UPLOADING, to this store. Returns its key there."""
        if row.state == _UPLOADING and row.store == store:
            # Whoever gave it up since it was found due did not see this attempt, and ends it no more.
            found = await self._database.read(
                lambda connection: find_segment(connection, row.app_id, row.file_id)
            )
            if found is None or found.state != _UPLOADING:
                raise GivenUp(row.file_id)
            return row.object_key

        async def begin(unit: UnitOfWork) -> str:
            await unit.lock_application(row.app_id)
            key = row.object_key
            if row.store != store:
                key = await uploads.move_to_store(unit, row, store, _moved_key(row, places, store))
            if is_whole:
                # Of a file that a power cut made shorter, more may have been sent than there is now.
                await multiparts.leave(unit.connection, row.file_id)
            if not await uploads.begin_upload(unit.connection, row.file_id):
                raise GivenUp(row.file_id)
            return key

        return await self._database.write(begin)


def _moved_key(row: SegmentRow, places: Destinations, store: str) -> str:
    """The key of a segment that goes to one of two stores instead of the other."""
    first, second = places.first, places.second
    if second is None:
        return row.object_key
    if store == second.store.identity and row.store == first.store.identity:
        return moved(row.object_key, first.prefix, second.prefix)
    if store == first.store.identity and row.store == second.store.identity:
        return moved(row.object_key, second.prefix, first.prefix)
    return row.object_key


async def _expire_ns(unit: UnitOfWork, row: SegmentRow) -> int | None:
    task = await tasks.find_task(unit.connection, row.app_id, row.task_id)
    application = await applications.get(unit.connection, row.app_id)
    if task is None or row.end_ns is None:
        return None
    output = task_pb2.OutputSettings.FromString(task.output)
    storage = storage_pb2.StorageSettings.FromString(application.storage)
    return expire_ns(row.end_ns, task.start_ns, output, storage)


async def _tell_takes(unit: UnitOfWork, app_id: str, store: str) -> None:
    """The first store takes something again."""
    known = await lanes.takes(unit.connection, app_id)
    if known is not None and known.uses_secondary:
        text = f"Segments go to {store} again; those in the secondary store stay there."
        await unit.append(store_warning(app_id, text))


def _uploaded_type(row: SegmentRow) -> event_pb2.EventType.ValueType:
    return event_pb2.EVENT_TYPE_SEGMENTS_JOINED if row.joined else event_pb2.EVENT_TYPE_SEGMENT_UPLOADED
