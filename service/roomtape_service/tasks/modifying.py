"""Changes of what a running task records."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.database import manifests
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.scopes import ScopeRow, add_scope
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.events.build import task_event
from roomtape_service.rooms.membership import Apply, audio_tracks
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rules.requests import check_mode, check_subscription
from roomtape_service.tasks.refusals import task_not_found
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.tasks import Tasks

__all__ = ["Modifying"]


class Modifying:
    """Changes tasks while they run."""

    def __init__(self, database: Database, rooms: Rooms, tasks: Tasks) -> None:
        self._database = database
        self._rooms = rooms
        self._tasks = tasks

    async def modify(
        self,
        order: Order[task_pb2.ModifyRecordInfoResponse],
        request: task_pb2.ModifyRecordInfoRequest,
        paths: Sequence[str],
    ) -> task_pb2.ModifyRecordInfoResponse:
        """Changes what `paths` name of `mode` and `subscription`. Raises the Refusals of ModifyRecordInfo."""
        task = self._tasks.find(request.task_id)
        room = self._rooms.by_key(task.room_key) if task and task.proto.app_id == order.app_id else None
        if task is None or room is None:
            return await self._database.write(
                lambda uow: self._modified_before(uow, order, request.task_id),
                name="tasks.modifying.Modifying.modify.before",
            )
        async with room.lock:
            wanted = task.with_changes(
                mode=request.mode if "mode" in paths else None,
                subscription=request.subscription if "subscription" in paths else None,
            )

            async def work(
                uow: UnitOfWork,
            ) -> tuple[task_pb2.ModifyRecordInfoResponse, list[Apply]]:
                earlier = await order.earlier_reply(uow)
                if earlier is not None:
                    return earlier, []
                if self._tasks.find(request.task_id) is not task:
                    await _refuse_ended(uow.connection, request.app_id, request.task_id)
                check_mode(wanted.mode)
                check_subscription(wanted.subscription, task.profile)
                subscription = wanted.subscription.SerializeToString()
                await task_rows.modify_task(uow.connection, task.task_id, wanted.mode, subscription)
                now_ns = room.now_ns(uow.now_ns)
                await add_scope(uow, ScopeRow(task.task_id, now_ns, wanted.mode, subscription))
                await manifests.changed(uow, request.app_id, task.task_id)
                await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_MODIFIED, wanted))
                applies = await self._tasks.adjust(uow, task, room, audio_tracks(room.participants), wanted)
                row = await task_rows.find_task(uow.connection, request.app_id, request.task_id)
                assert row is not None
                reply = task_pb2.ModifyRecordInfoResponse(task=task_proto(row))
                applies.insert(0, lambda: task.modified(wanted))
                return await order.keep(uow, reply), applies

            reply, applies = await self._database.write(work)
            for apply in applies:
                apply()
            return reply

    async def _modified_before(
        self, uow: UnitOfWork, order: Order[task_pb2.ModifyRecordInfoResponse], task_id: str
    ) -> task_pb2.ModifyRecordInfoResponse:
        earlier = await order.earlier_reply(uow)
        if earlier is not None:
            return earlier
        await _refuse_ended(uow.connection, order.app_id, task_id)
        raise task_not_found(order.app_id, task_id)


async def _refuse_ended(connection: AsyncConnection, app_id: str, task_id: str) -> None:
    row = await task_rows.find_task(connection, app_id, task_id)
    if row is not None:
        state = task_pb2.TaskState.Name(task_pb2.TaskState.ValueType(row.state))
        raise Refusal(
            error_pb2.ERROR_REASON_TASK_ENDED,
            f"The task {task_id} was stopped ({state}); start a new one.",
            metadata={"taskId": task_id, "state": state},
        )
