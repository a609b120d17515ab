"""The start of a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roomtape.v1 import application_pb2, error_pb2, event_pb2, segment_pb2, task_pb2
from roomtape_service.database import applications as application_rows
from roomtape_service.database import manifests
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.labels import add_labels
from roomtape_service.database.orders import Order
from roomtape_service.database.scopes import ScopeRow, add_scope
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.events.build import task_event
from roomtape_service.events.log import EventLog
from roomtape_service.ids import Ids
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.rooms.membership import Apply, audio_tracks
from roomtape_service.rooms.room import LiveRoom
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rules.profiles import Profile, profile_of
from roomtape_service.rules.requests import check_mode, check_output, check_subscription, filled_output
from roomtape_service.rules.scope import desired_recordings
from roomtape_service.tasks.files import writable
from roomtape_service.tasks.task import LiveTask, task_proto
from roomtape_service.tasks.tasks import Tasks

__all__ = ["Starting"]

_WORKER_WAIT_SECONDS = 5.0
"""How long a start waits for a worker that is just being restarted."""

_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Started:
    reply: task_pb2.StartRecordResponse
    task: LiveTask | None = None
    applies: Sequence[Apply] = ()


class Starting:
    """Starts tasks in open rooms."""

    def __init__(
        self,
        database: Database,
        rooms: Rooms,
        tasks: Tasks,
        pool: WorkerPool,
        log: EventLog,
        ids: Ids,
        require_room: Callable[[], None],
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._tasks = tasks
        self._pool = pool
        self._log = log
        self._ids = ids
        self._require_room = require_room

    async def start(
        self, order: Order[task_pb2.StartRecordResponse], request: task_pb2.StartRecordRequest
    ) -> task_pb2.StartRecordResponse:
        """Starts a task. Raises the Refusals that the contract names at StartRecord."""
        earlier = (
            await self._database.write(order.earlier_reply, name="tasks.starting.Starting.start.before")
            if order.request_id
            else None
        )
        if earlier is not None:
            return earlier
        application = await self._database.read(
            lambda connection: application_rows.get(connection, request.app_id)
        )
        profile = profile_of(application.profile)
        check_mode(request.mode)
        check_subscription(request.subscription, profile)
        check_output(request.output)
        if application.service_state == application_pb2.SERVICE_STATE_DISABLED:
            raise Refusal(
                error_pb2.ERROR_REASON_SERVICE_DISABLED,
                f"Recording is switched off for the application {request.app_id!r}; set its service_state.",
                metadata={"appId": request.app_id},
            )
        room = self._rooms.find(request.app_id, request.room_id)
        await self._require_worker()
        if self._same_client_task(room, request) is None:
            self._require_room()
        async with room.lock:
            if room.closed:
                self._rooms.find(request.app_id, request.room_id)

            async def work(uow: UnitOfWork) -> _Started:
                repeated = await order.earlier_reply(uow)
                if repeated is not None:
                    return _Started(repeated)
                running = self._same_client_task(room, request)
                if running is not None:
                    head = await self._log.head(uow.connection, request.app_id)
                    token = self._log.resume_token(request.app_id, head)
                    return _Started(task_pb2.StartRecordResponse(task=running.proto, resume_token=token))
                if not profile.concurrent_tasks:
                    self._require_free(room)
                task = self._new_task(room, request, uow.now_ns, profile_of(application.profile))
                self._require_containers(room, task)
                row = task.row()
                await task_rows.insert_task(uow.connection, row)
                now_ns = room.now_ns(uow.now_ns)
                await add_scope(uow, ScopeRow(row.task_id, now_ns, row.mode, row.subscription))
                await manifests.changed(uow, row.app_id, row.task_id)
                await add_labels(uow.connection, request.app_id, task.task_id, request.labels)
                started = await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_STARTED, task.proto))
                reply = task_pb2.StartRecordResponse(
                    task=started.task.task,
                    resume_token=self._log.resume_token(request.app_id, started.sequence - 1),
                )
                users = audio_tracks(room.participants)
                applies = await self._tasks.adjust(uow, task, room, users, task.proto)
                stored = await task_rows.find_task(uow.connection, request.app_id, task.task_id)
                assert stored is not None
                reply.task.CopyFrom(task_proto(stored))
                return _Started(await order.keep(uow, reply), task, applies)

            result = await self._database.write(work)
            if result.task is not None:
                self._tasks.add(result.task)
            for apply in result.applies:
                apply()
            return result.reply

    async def _require_worker(self) -> None:
        if not await self._pool.wait_for_worker(_WORKER_WAIT_SECONDS):
            raise Refusal(
                error_pb2.ERROR_REASON_NO_CAPACITY,
                "No worker is there to record; try again in a moment.",
                retry_after_seconds=_RETRY_SECONDS,
            )

    def _same_client_task(self, room: LiveRoom, request: task_pb2.StartRecordRequest) -> LiveTask | None:
        for task in self._tasks.of_room(room.room_key):
            if request.client_task_id and task.proto.client_task_id == request.client_task_id:
                return task
        return None

    def _require_free(self, room: LiveRoom) -> None:
        for task in self._tasks.of_room(room.room_key):
            raise Refusal(
                error_pb2.ERROR_REASON_TASK_IN_USE,
                f"The room {room.room_id!r} is being recorded by the task {task.task_id}; stop it first.",
                metadata={"roomId": room.room_id, "taskId": task.task_id},
            )

    def _require_containers(self, room: LiveRoom, task: LiveTask) -> None:
        desired = desired_recordings(
            task.proto.mode, task.proto.subscription, audio_tracks(room.participants)
        )
        for key, tracks in desired.items():
            if key.kind != segment_pb2.RECORDING_KIND_SINGLE:
                continue
            if not writable(task.proto.output.single_containers, tracks[0].codec):
                raise field_refusal(
                    error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER,
                    "output.single_containers",
                    f"the user {key.user_id!r} publishes PCM, which OGG does not hold untouched; add WAV or MP3",
                    userId=key.user_id,
                )

    def _new_task(
        self, room: LiveRoom, request: task_pb2.StartRecordRequest, now_ns: int, profile: Profile
    ) -> LiveTask:
        proto = task_pb2.Task(
            task_id=self._ids.number(),
            app_id=request.app_id,
            room_id=request.room_id,
            client_task_id=request.client_task_id,
            mode=request.mode,
            subscription=request.subscription,
            output=filled_output(request.output, profile),
            state=task_pb2.TASK_STATE_WAITING,
            labels=dict(request.labels),
        )
        proto.start_time.FromNanoseconds(now_ns)
        return LiveTask(room.room_key, proto, profile, now_ns)
