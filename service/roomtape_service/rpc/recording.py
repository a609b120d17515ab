"""RecordingService: requests are checked here, and carried out by the tasks."""

from collections.abc import Sequence

from google.protobuf import field_mask_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, task_pb2, task_pb2_grpc
from roomtape_service.database import applications as application_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.segments import segment_message
from roomtape_service.errors import field_refusal
from roomtape_service.events.log import EventLog
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rpc import validation
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.paging import read_page, write_token
from roomtape_service.rpc.remembered import RememberedAnswers
from roomtape_service.rules.requests import MODIFIABLE_PATHS
from roomtape_service.tasks.orders import TaskOrders
from roomtape_service.tasks.refusals import task_not_found
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.tasks import Tasks, recording_proto

__all__ = ["RecordingServicer"]


class RecordingServicer(task_pb2_grpc.RecordingServiceServicer):
    """See the contract for what each call does and refuses."""

    def __init__(
        self, database: Database, rooms: Rooms, tasks: Tasks, orders: TaskOrders, log: EventLog
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._tasks = tasks
        self._orders = orders
        self._log = log
        self._described_rooms = RememberedAnswers[task_pb2.DescribeTaskInfoResponse](database)
        self._described_tasks = RememberedAnswers[task_pb2.DescribeRecordInfoResponse](database)

    async def StartRecord(
        self, request: task_pb2.StartRecordRequest, context: Context
    ) -> task_pb2.StartRecordResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id),
            validation.client_task_id(request.client_task_id),
            validation.labels(request.labels),
            validation.request_id(request.request_id),
            *_user_ids(request.subscription),
        )
        order = Order(
            request.app_id, request.request_id, "StartRecord", request, task_pb2.StartRecordResponse
        )
        return await self._orders.start(order, request)

    async def StopRecord(
        self, request: task_pb2.StopRecordRequest, context: Context
    ) -> task_pb2.StopRecordResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.task_id(request.task_id),
            validation.request_id(request.request_id),
        )
        order = Order(request.app_id, request.request_id, "StopRecord", request, task_pb2.StopRecordResponse)
        return await self._orders.stop(order, request.task_id)

    async def ModifyRecordInfo(
        self, request: task_pb2.ModifyRecordInfoRequest, context: Context
    ) -> task_pb2.ModifyRecordInfoResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.task_id(request.task_id),
            validation.request_id(request.request_id),
            validation.update_mask(request.update_mask, MODIFIABLE_PATHS),
            *_user_ids(request.subscription),
        )
        paths = _paths(request, request.update_mask)
        order = Order(
            request.app_id, request.request_id, "ModifyRecordInfo", request, task_pb2.ModifyRecordInfoResponse
        )
        return await self._orders.modify(order, request, paths)

    async def DescribeTaskInfo(
        self, request: task_pb2.DescribeTaskInfoRequest, context: Context
    ) -> task_pb2.DescribeTaskInfoResponse:
        validation.refuse(validation.app_id(request.app_id), validation.room_id(request.room_id))
        room = await self._rooms.require(request.app_id, request.room_id)
        running = tuple(task.task_id for task in self._tasks.of_room(room.room_key))

        async def read(connection: AsyncConnection) -> task_pb2.DescribeTaskInfoResponse:
            rows = [await task_rows.find_task(connection, request.app_id, task_id) for task_id in running]
            return task_pb2.DescribeTaskInfoResponse(
                tasks=[task_proto(row) for row in rows if row is not None]
            )

        if not running:
            return task_pb2.DescribeTaskInfoResponse()
        return await self._described_rooms.get((request.app_id, running), read)

    async def DescribeRecordInfo(
        self, request: task_pb2.DescribeRecordInfoRequest, context: Context
    ) -> task_pb2.DescribeRecordInfoResponse:
        validation.refuse(validation.app_id(request.app_id), validation.task_id(request.task_id))

        async def read(connection: AsyncConnection) -> task_pb2.DescribeRecordInfoResponse:
            row = await task_rows.find_task(connection, request.app_id, request.task_id)
            if row is None:
                await application_rows.get(connection, request.app_id)
                raise task_not_found(request.app_id, request.task_id)
            recordings = await recording_rows.recordings_of_task(connection, request.task_id)
            segments = await segment_rows.segments_of_task(connection, request.task_id)
            order = {recording.recording_id: place for place, recording in enumerate(recordings)}
            ordered = sorted(
                segments, key=lambda each: (order[each.recording_id], each.segment_id, each.container)
            )
            return task_pb2.DescribeRecordInfoResponse(
                task=task_proto(row),
                recordings=[recording_proto(recording) for recording in recordings],
                segments=[segment_message(segment) for segment in ordered],
            )

        return await self._described_tasks.get((request.app_id, request.task_id), read)

    async def ListTasks(
        self, request: task_pb2.ListTasksRequest, context: Context
    ) -> task_pb2.ListTasksResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id, required=False),
            *(
                validation.enum(state, task_pb2.TaskState, f"states[{index}]", required=True)
                for index, state in enumerate(request.states)
            ),
        )
        size, place = read_page(request)
        before = (int(place[0]), str(place[1])) if place else None

        async def read(connection: AsyncConnection) -> task_pb2.ListTasksResponse:
            await application_rows.get(connection, request.app_id)
            rows = await task_rows.list_tasks(
                connection,
                request.app_id,
                room_id=request.room_id,
                states=tuple(request.states),
                before=before,
                limit=size + 1,
            )
            head = await self._log.head(connection, request.app_id)
            page, is_last = rows[:size], len(rows) <= size
            return task_pb2.ListTasksResponse(
                tasks=[task_proto(row) for row in page],
                next_page_token=""
                if is_last
                else write_token(request, (page[-1].start_ns, page[-1].task_id)),
                resume_token=self._log.resume_token(request.app_id, head),
            )

        return await self._database.read(read)


def _user_ids(subscription: task_pb2.Subscription) -> list[validation.Problem | None]:
    audio = subscription.audio
    return [
        validation.user_id(user_id, f"subscription.audio.{name}[{index}]")
        for name, user_ids in (
            ("allow_user_ids", audio.allow_user_ids),
            ("block_user_ids", audio.block_user_ids),
        )
        for index, user_id in enumerate(user_ids)
    ]


def _paths(request: task_pb2.ModifyRecordInfoRequest, mask: field_mask_pb2.FieldMask) -> Sequence[str]:
    if mask.paths:
        return list(mask.paths)
    paths = []
    if request.mode:
        paths.append("mode")
    if request.HasField("subscription"):
        paths.append("subscription")
    if not paths:
        raise field_refusal(
            error_pb2.ERROR_REASON_FIELD_REQUIRED,
            "update_mask",
            "nothing to change: set mode or subscription, or name them here",
        )
    return paths
