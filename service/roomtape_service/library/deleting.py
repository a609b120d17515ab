"""Files are deleted: state, event and what is to be removed in one unit of work, then the object."""

from roomtape.v1 import event_pb2, file_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import manifests, removals
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.segments import SegmentRow, find_segment, segment_message, set_state
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import segment_event
from roomtape_service.library.refusals import file_not_found, file_not_stored
from roomtape_service.library.removing import NOW_SECONDS, Removals

__all__ = ["Deleting", "take_from_library"]

_UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED
_DELETED = segment_pb2.SEGMENT_STATE_DELETED


class Deleting:
    """Deletes files that are in a store."""

    def __init__(self, database: Database, removing: Removals) -> None:
        self._database = database
        self._removing = removing

    async def delete(
        self, order: Order[file_pb2.DeleteFileResponse], file_id: str
    ) -> file_pb2.DeleteFileResponse:
        """Returns when it is durable and the store had its chance. Raises Refusal FILE_NOT_FOUND, FILE_NOT_STORED."""
        deleted: list[SegmentRow] = []

        async def work(uow: UnitOfWork) -> file_pb2.DeleteFileResponse:
            deleted.clear()
            earlier = await order.earlier_reply(uow)
            if earlier is not None:
                return earlier
            row = await find_segment(uow.connection, order.app_id, file_id)
            if row is None:
                raise file_not_found(order.app_id, file_id)
            if row.state not in (_UPLOADED, _DELETED):
                raise file_not_stored(row)
            file = segment_message(row)
            if row.state == _UPLOADED:
                # Left to this call for as long as it tries.
                due_ns = uow.now_ns + round(NOW_SECONDS * NANOSECONDS)
                file = await take_from_library(uow, row, _DELETED, due_ns=due_ns)
                deleted.append(row)
            return await order.keep(uow, file_pb2.DeleteFileResponse(file=file))

        reply = await self._database.write(work)
        for row in deleted:
            await self._removing.remove_now(row.app_id, row.store, row.object_key)
        return reply


async def take_from_library(
    uow: UnitOfWork, row: SegmentRow, state: segment_pb2.SegmentState.ValueType, *, due_ns: int
) -> segment_pb2.Segment:
    """An UPLOADED file becomes DELETED or EXPIRED; its object goes from `due_ns` on. Returns it as it is then."""
    await set_state(uow.connection, row.file_id, state)
    await removals.add(uow, row.app_id, row.store, row.object_key, due_ns=due_ns)
    changed = await find_segment(uow.connection, row.app_id, row.file_id)
    assert changed is not None
    file = segment_message(changed)
    event_type = (
        event_pb2.EVENT_TYPE_SEGMENT_DELETED if state == _DELETED else event_pb2.EVENT_TYPE_SEGMENT_EXPIRED
    )
    await uow.append(segment_event(event_type, row.app_id, file))
    await manifests.changed(uow, row.app_id, row.task_id)
    return file
