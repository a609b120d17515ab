"""Orders to record: start, stop and modify."""

from collections.abc import Callable, Sequence

from roomtape.v1 import task_pb2
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.log import EventLog
from roomtape_service.ids import Ids
from roomtape_service.operations import Operations
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.rooms.membership import Apply
from roomtape_service.rooms.room import LiveRoom
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.tasks.modifying import Modifying
from roomtape_service.tasks.starting import Starting
from roomtape_service.tasks.stopping import Stopping
from roomtape_service.tasks.task import LiveTask
from roomtape_service.tasks.tasks import Tasks

__all__ = ["TaskOrders"]


class TaskOrders:
    """Carries out orders: state, events and reply are one unit of work, and workers hear of it afterwards.

    An order whose caller goes away is carried out all the same.
    """

    def __init__(
        self,
        database: Database,
        rooms: Rooms,
        tasks: Tasks,
        pool: WorkerPool,
        log: EventLog,
        operations: Operations,
        ids: Ids,
        require_room: Callable[[], None],
    ) -> None:
        """`require_room` raises Refusal when no task may be started."""
        self._operations = operations
        self._starting = Starting(database, rooms, tasks, pool, log, ids, require_room)
        self._stopping = Stopping(database, rooms, tasks)
        self._modifying = Modifying(database, rooms, tasks)

    async def start(
        self, order: Order[task_pb2.StartRecordResponse], request: task_pb2.StartRecordRequest
    ) -> task_pb2.StartRecordResponse:
        """Starts a task. Raises the Refusals that the contract names at StartRecord."""
        return await self._operations.run(self._starting.start(order, request))

    async def stop(
        self, order: Order[task_pb2.StopRecordResponse], task_id: str
    ) -> task_pb2.StopRecordResponse:
        """Stops a task. Raises Refusal TASK_NOT_FOUND."""
        return await self._operations.run(self._stopping.stop(order, task_id))

    async def modify(
        self,
        order: Order[task_pb2.ModifyRecordInfoResponse],
        request: task_pb2.ModifyRecordInfoRequest,
        paths: Sequence[str],
    ) -> task_pb2.ModifyRecordInfoResponse:
        """Changes what `paths` name of `mode` and `subscription`. Raises the Refusals of ModifyRecordInfo."""
        return await self._operations.run(self._modifying.modify(order, request, paths))

    async def expire(self, task: LiveTask) -> None:
        """Stops a task for which nobody came back."""
        await self._operations.run(self._stopping.expire(task))

    async def room_changed(self, uow: UnitOfWork, room: LiveRoom, users: object) -> Sequence[Apply]:
        """Nothing: `Tasks` adjusts what is recorded."""
        return ()

    async def room_closed(self, uow: UnitOfWork, room: LiveRoom) -> Sequence[Apply]:
        """Stops the room's tasks with the room."""
        return await self._stopping.room_closed(uow, room)
