"""Orders to join segments: a row in state RECORDING, which `library.joins` makes a file of."""

from collections.abc import Callable, Sequence

from roomtape.v1 import error_pb2, file_pb2, media_pb2, segment_pb2
from roomtape_service.database import applications as application_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.joined import find_joined
from roomtape_service.database.orders import Order
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.segments import (
    SegmentRow,
    StartedSegment,
    find_segment,
    insert_segment,
    segment_message,
    segments_of_recording,
)
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.ids import Ids
from roomtape_service.library.join_plan import JoinPlan, NotJoinableError, plan_join
from roomtape_service.rules.naming import mixed_key, single_key
from roomtape_service.storage.stores import Stores

__all__ = ["Joining"]


class Joining:
    """Takes orders; `on_ordered` is called after each."""

    def __init__(self, database: Database, stores: Stores, ids: Ids, on_ordered: Callable[[], None]) -> None:
        self._database = database
        self._stores = stores
        self._ids = ids
        self._on_ordered = on_ordered

    async def join(
        self, order: Order[file_pb2.JoinSegmentsResponse], request: file_pb2.JoinSegmentsRequest
    ) -> file_pb2.JoinSegmentsResponse:
        """Returns when the order is durable.

        Raises Refusal RECORDING_NOT_FOUND, INVALID_CONTAINER, SEGMENTS_NOT_JOINABLE.
        """

        async def work(uow: UnitOfWork) -> file_pb2.JoinSegmentsResponse:
            earlier = await order.earlier_reply(uow)
            if earlier is not None:
                return earlier
            row = await self._order(uow, request)
            return await order.keep(uow, file_pb2.JoinSegmentsResponse(file=segment_message(row)))

        reply = await self._database.write(work)
        self._on_ordered()
        return reply

    async def _order(self, uow: UnitOfWork, request: file_pb2.JoinSegmentsRequest) -> SegmentRow:
        recording = await recording_rows.find_recording(uow.connection, request.recording_id)
        if recording is None or recording.app_id != request.app_id:
            raise Refusal(
                error_pb2.ERROR_REASON_RECORDING_NOT_FOUND,
                f"The application {request.app_id!r} has no recording {request.recording_id!r}.",
                metadata={"appId": request.app_id, "recordingId": request.recording_id},
            )
        rows = await segments_of_recording(uow.connection, recording.recording_id)
        container = _container(request, rows)
        rows = [row for row in rows if row.container == container]
        first = request.first_segment_id
        last = max((row.segment_id for row in rows), default=-1)
        if request.HasField("last_segment_id"):
            last = request.last_segment_id
        known = await find_joined(
            uow.connection, recording.recording_id, first, container, max(0, last - first + 1)
        )
        if known is not None:
            return known
        try:
            plan = plan_join(rows, first, last)
        except NotJoinableError as error:
            raise _not_joinable(request, error) from error
        file_id = await self._insert(uow, recording, plan, container)
        row = await find_segment(uow.connection, request.app_id, file_id)
        assert row is not None
        return row

    async def _insert(
        self,
        uow: UnitOfWork,
        recording: RecordingRow,
        plan: JoinPlan,
        container: media_pb2.Container.ValueType,
    ) -> str:
        task = await task_rows.find_task(uow.connection, recording.app_id, recording.task_id)
        assert task is not None
        application = await application_rows.get(uow.connection, recording.app_id)
        store, prefix = self._stores.place(application)
        first, last = plan.segments[0], plan.segments[-1]
        names = (task.start_ns, first.segment_id, container)
        if recording.kind == segment_pb2.RECORDING_KIND_MIXED:
            key = mixed_key(
                *(prefix, task.app_id, task.room_id, task.task_id, *names), last_segment_id=last.segment_id
            )
        else:
            key = single_key(
                *(prefix, task.app_id, task.room_id, recording.user_id, *names),
                last_segment_id=last.segment_id,
            )
        started = StartedSegment(
            file_id=self._ids.token(),
            recording_id=recording.recording_id,
            task_id=task.task_id,
            app_id=task.app_id,
            room_id=task.room_id,
            kind=recording.kind,
            user_id=recording.user_id,
            segment_id=first.segment_id,
            container=container,
            codec=first.codec,
            spool_path=None,
            store=store,
            object_key=key,
            start_ns=first.start_ns,
            sample_rate=first.sample_rate,
            channels=first.channels,
            joined=len(plan.segments),
        )
        await insert_segment(uow.connection, started)
        return started.file_id


def _container(
    request: file_pb2.JoinSegmentsRequest, rows: Sequence[SegmentRow]
) -> media_pb2.Container.ValueType:
    found = sorted({row.container for row in rows})
    names = ", ".join(media_pb2.Container.Name(media_pb2.Container.ValueType(each)) for each in found)
    if request.container:
        if found and request.container not in found:
            raise field_refusal(
                error_pb2.ERROR_REASON_INVALID_CONTAINER,
                "container",
                f"the recording has no files of this kind; write one of {names}",
                recordingId=request.recording_id,
            )
        return request.container
    if len(found) > 1:
        raise field_refusal(
            error_pb2.ERROR_REASON_INVALID_CONTAINER,
            "container",
            f"the recording has files of several kinds; write one of {names}",
            recordingId=request.recording_id,
        )
    return media_pb2.Container.ValueType(found[0]) if found else media_pb2.CONTAINER_UNSPECIFIED


def _not_joinable(request: file_pb2.JoinSegmentsRequest, error: NotJoinableError) -> Refusal:
    metadata = {"appId": request.app_id, "recordingId": request.recording_id}
    if error.segment_id >= 0:
        metadata["segmentId"] = str(error.segment_id)
    return Refusal(
        error_pb2.ERROR_REASON_SEGMENTS_NOT_JOINABLE,
        f"The segments of the recording {request.recording_id!r} can't be joined: {error}.",
        metadata=metadata,
    )
