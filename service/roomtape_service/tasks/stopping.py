"""The end of a task's recording: by order, because nobody came back, or with its room."""

from collections.abc import Sequence
from functools import partial

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.database import manifests
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import task_event
from roomtape_service.rooms.membership import Apply
from roomtape_service.rooms.room import LiveRoom
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.tasks.refusals import task_not_found
from roomtape_service.tasks.task import LiveTask, task_proto
from roomtape_service.tasks.tasks import Tasks

__all__ = ["Stopping"]


class Stopping:
    """Stops tasks; what has arrived until then is recorded."""

    def __init__(self, database: Database, rooms: Rooms, tasks: Tasks) -> None:
        self._database = database
        self._rooms = rooms
        self._tasks = tasks

    async def stop(
        self, order: Order[task_pb2.StopRecordResponse], task_id: str
    ) -> task_pb2.StopRecordResponse:
        """Stops a task. Raises Refusal TASK_NOT_FOUND."""
        task = self._tasks.find(task_id)
        room = self._rooms.by_key(task.room_key) if task and task.proto.app_id == order.app_id else None
        if task is None or room is None:
            return await self._database.write(
                lambda uow: self._stopped_before(uow, order, task_id),
                name="tasks.stopping.Stopping.stop.before",
            )
        async with room.lock:
            is_running = self._tasks.find(task_id) is task

            async def work(uow: UnitOfWork) -> tuple[task_pb2.StopRecordResponse, bool]:
                earlier = await order.earlier_reply(uow)
                if earlier is not None:
                    return earlier, False
                if not is_running:
                    return await self._stopped_before(uow, order, task_id), False
                proto = await self._end(uow, task, room, task_pb2.STOP_REASON_API)
                return await order.keep(uow, task_pb2.StopRecordResponse(task=proto)), True

            reply, stopped = await self._database.write(work)
            if stopped:
                self._tasks.remove(task, room)
            return reply

    async def expire(self, task: LiveTask) -> None:
        """Stops a task for which nobody came back."""
        room = self._rooms.by_key(task.room_key)
        if room is None:
            return
        async with room.lock:
            if self._tasks.find(task.task_id) is not task or task.idle_since_ns is None:
                return

            async def work(uow: UnitOfWork) -> None:
                await self._end(uow, task, room, task_pb2.STOP_REASON_IDLE_TIMEOUT)

            await self._database.write(work)
            self._tasks.remove(task, room)

    async def room_closed(self, uow: UnitOfWork, room: LiveRoom) -> Sequence[Apply]:
        """Stops the room's tasks with the room."""
        applies: list[Apply] = []
        for task in self._tasks.of_room(room.room_key):
            await self._end(uow, task, room, task_pb2.STOP_REASON_ROOM_CLOSED)
            applies.append(partial(self._tasks.remove, task, room))
        return applies

    async def _stopped_before(
        self, uow: UnitOfWork, order: Order[task_pb2.StopRecordResponse], task_id: str
    ) -> task_pb2.StopRecordResponse:
        earlier = await order.earlier_reply(uow)
        if earlier is not None:
            return earlier
        row = await task_rows.find_task(uow.connection, order.app_id, task_id)
        if row is None:
            raise task_not_found(order.app_id, task_id)
        return await order.keep(uow, task_pb2.StopRecordResponse(task=task_proto(row)))

    async def _end(
        self, uow: UnitOfWork, task: LiveTask, room: LiveRoom, reason: task_pb2.StopReason.ValueType
    ) -> task_pb2.Task:
        # As the unit has it: the room's closing has made it IDLE before.
        running = await task_rows.find_task(uow.connection, task.proto.app_id, task.task_id)
        assert running is not None
        before = task_pb2.TaskState.ValueType(running.state)
        await task_rows.stop_task(uow.connection, task.task_id, reason, uow.now_ns)
        # For a node after this one, should this one not live to see the recordings' end.
        came = {each: room.feed.came_until(each) for each in task.recordings.values()}
        await recording_rows.stop_recordings(
            uow.connection, task.task_id, {each: tracks for each, tracks in came.items() if tracks}
        )
        row = await task_rows.find_task(uow.connection, task.proto.app_id, task.task_id)
        assert row is not None
        proto = task_proto(row)
        await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_STOPPED, proto))
        changed = await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, proto, before))
        # The reply tells of the task as its newest event does.
        proto.task_sequence = changed.task_sequence
        await manifests.changed(uow, task.proto.app_id, task.task_id)
        return proto
