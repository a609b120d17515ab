"""Segments are given up that their store does not take: the one way in which the server stops trying.

1. State and event are one unit of work. An attempt that is going on can't finish after it: that takes UPLOADING.
2. The attempt is ended. What of it reached the store goes: its multipart is left to be aborted, and the object is
   removed, should the store have completed what was on its way.
3. The media is moved aside. After a crash before, the next start does it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, file_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import manifests, multiparts, removals, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.segments import (
    SegmentRow,
    abandoned_on_spool,
    find_segment,
    segment_message,
    segments_of_recording,
    set_state,
)
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.events.build import segment_event
from roomtape_service.library.refusals import file_not_found, state_name
from roomtape_service.operations import Operations
from roomtape_service.spool.aside import keep_aside
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.tasks.completion import complete_if_done

__all__ = ["Abandoning", "StopUpload"]

StopUpload = Callable[[str], Awaitable[None]]
"""Ends the attempt that a file may be in, and waits for its end."""

# A request that was cut off on our side may still be carried out by the store.
_LANDING_NS = 60 * NANOSECONDS

_UPLOADING = segment_pb2.SEGMENT_STATE_UPLOADING
_ABANDONED = segment_pb2.SEGMENT_STATE_ABANDONED
_ABANDONABLE = (segment_pb2.SEGMENT_STATE_SPOOLED, _UPLOADING)

_log = structlog.get_logger(__name__)


class Abandoning:
    """Gives up segments that are complete on the spool."""

    def __init__(
        self, database: Database, spool_root: Path, operations: Operations, stop_upload: StopUpload
    ) -> None:
        self._database = database
        self._spool_root = spool_root
        self._operations = operations
        self._stop_upload = stop_upload

    async def abandon(
        self, order: Order[file_pb2.AbandonFileResponse], file_id: str
    ) -> file_pb2.AbandonFileResponse:
        """Returns when the media is aside. Raises Refusal FILE_NOT_FOUND, FILE_NOT_ABANDONABLE."""
        return await self._operations.run(self._abandon(order, file_id))

    async def take_up(self) -> None:
        """Finishes what the last node had begun."""
        for row in await self._database.read(abandoned_on_spool):
            await self._set_aside(row)

    async def _abandon(
        self, order: Order[file_pb2.AbandonFileResponse], file_id: str
    ) -> file_pb2.AbandonFileResponse:
        given_up: list[SegmentRow] = []

        async def work(uow: UnitOfWork) -> file_pb2.AbandonFileResponse:
            given_up.clear()
            earlier = await order.earlier_reply(uow)
            if earlier is not None:
                return earlier
            row = await find_segment(uow.connection, order.app_id, file_id)
            if row is None:
                raise file_not_found(order.app_id, file_id)
            file = segment_message(row)
            if row.state != _ABANDONED:
                file = await _give_up(uow, row)
                given_up.append(row)
            return await order.keep(uow, file_pb2.AbandonFileResponse(file=file))

        reply = await self._database.write(work, name="library.abandoning.Abandoning.abandon")
        for row in given_up:
            _log.warning("file_abandoned", app_id=row.app_id, task_id=row.task_id, file_id=row.file_id)
            await self._stop_upload(row.file_id)
            await self._set_aside(row)
        return reply

    async def _set_aside(self, row: SegmentRow) -> None:
        """What can't be moved is moved at the next start."""
        if row.spool_path is None:
            return
        path = Path(row.spool_path)

        async def siblings(connection: AsyncConnection) -> Sequence[SegmentRow]:
            return await segments_of_recording(connection, row.recording_id, row.segment_id)

        rows = await self._database.read(siblings)
        is_whole = not row.joined and all(
            each.spool_path is None for each in rows if each.file_id != row.file_id
        )
        try:
            if not row.joined:
                # What was joined is still in its segments.
                await asyncio.to_thread(keep_aside, path, self._spool_root)
            await asyncio.to_thread(remove_stored, path, is_whole_segment=is_whole)
        except OSError as error:
            _log.warning("spool_file_not_set_aside", file_id=row.file_id, path=str(path), error=str(error))
            return

        async def forget(uow: UnitOfWork) -> None:
            await uploads.forget_spool_file(uow.connection, row.file_id)

        await self._database.write(forget, name="library.abandoning.Abandoning.forget")


async def _give_up(uow: UnitOfWork, row: SegmentRow) -> segment_pb2.Segment:
    if row.state not in _ABANDONABLE:
        raise Refusal(
            error_pb2.ERROR_REASON_FILE_NOT_ABANDONABLE,
            f"The file {row.file_id!r} is {state_name(row)}; only what is SPOOLED or UPLOADING can be given up.",
            metadata={"appId": row.app_id, "fileId": row.file_id, "state": state_name(row)},
        )
    await set_state(uow.connection, row.file_id, _ABANDONED)
    await multiparts.leave(uow.connection, row.file_id)
    if row.state == _UPLOADING:
        await removals.add(uow, row.app_id, row.store, row.object_key, due_ns=uow.now_ns + _LANDING_NS)
    changed = await find_segment(uow.connection, row.app_id, row.file_id)
    assert changed is not None
    file = segment_message(changed)
    await uow.append(segment_event(event_pb2.EVENT_TYPE_SEGMENT_ABANDONED, row.app_id, file))
    await manifests.changed(uow, row.app_id, row.task_id)
    if not row.joined:
        # The store that does not take the file may not take a manifest either: that follows when it does.
        await complete_if_done(uow, row.app_id, row.task_id, uow.now_ns)
    return file
