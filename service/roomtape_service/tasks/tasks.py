"""The running tasks of a node, and what each records of its room at any moment."""

from collections.abc import Iterable, Sequence
from functools import partial

import structlog

from roomtape.v1 import error_pb2, event_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.clock import Clock
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import recording_event, task_event, warning_event
from roomtape_service.ids import Ids
from roomtape_service.recording import protocol
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.recording import FeedRecording, RecordingFacts
from roomtape_service.rooms.membership import Apply, Users
from roomtape_service.rooms.room import LiveRoom, timestamp
from roomtape_service.rules.scope import AudioTrack, RecordingKey, desired_recordings
from roomtape_service.tasks.files import CONTAINERS, writable
from roomtape_service.tasks.task import LiveTask

__all__ = ["Tasks", "recording_key", "recording_proto"]

log = structlog.get_logger(__name__)

_KINDS = {
    segment_pb2.RECORDING_KIND_SINGLE: protocol.RecordingKind.SINGLE,
    segment_pb2.RECORDING_KIND_MIXED: protocol.RecordingKind.MIXED,
}


class Tasks:
    """Holds the tasks that have not been stopped, and listens to the rooms for them.

    A change is decided within the unit of work that causes it, and told to memory and workers by the `Apply`s that it
    returns.
    """

    def __init__(self, pool: WorkerPool, clock: Clock, ids: Ids) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._by_room: dict[str, list[LiveTask]] = {}
        self._by_id: dict[str, LiveTask] = {}

    def find(self, task_id: str) -> LiveTask | None:
        """The running task with this id."""
        return self._by_id.get(task_id)

    def of_room(self, room_key: str) -> Sequence[LiveTask]:
        """The room's running tasks, oldest first."""
        return tuple(self._by_room.get(room_key, ()))

    def running(self) -> Iterable[LiveTask]:
        """All running tasks."""
        return tuple(self._by_id.values())

    def add(self, task: LiveTask) -> None:
        """Takes up a task that is stored."""
        self._by_id[task.task_id] = task
        self._by_room.setdefault(task.room_key, []).append(task)

    def remove(self, task: LiveTask, room: LiveRoom) -> None:
        """A task was stopped: its recordings end with what has arrived."""
        self._by_id.pop(task.task_id, None)
        running = self._by_room.get(task.room_key, [])
        if task in running:
            running.remove(task)
        if not running:
            self._by_room.pop(task.room_key, None)
        at_ns = room.now_ns(self._clock.now_ns())
        for recording_id in task.recordings.values():
            if recording_id in room.feed.recordings:
                room.feed.stop_recording(recording_id, at_ns)

    async def room_changed(self, uow: UnitOfWork, room: LiveRoom, users: Users) -> Sequence[Apply]:
        """What the room's tasks make of a change of who is there."""
        applies: list[Apply] = []
        for task in self.of_room(room.room_key):
            applies += await self.adjust(uow, task, room, users, task.proto)
        return applies

    async def room_closed(self, uow: UnitOfWork, room: LiveRoom) -> Sequence[Apply]:
        """Nothing: the orders stop the room's tasks."""
        return ()

    async def adjust(
        self, uow: UnitOfWork, task: LiveTask, room: LiveRoom, users: Users, wanted: task_pb2.Task
    ) -> list[Apply]:
        """Brings a task's recordings and state in line with `users` and with `wanted`, the task as it shall be."""
        applies: list[Apply] = []
        desired = desired_recordings(wanted.mode, wanted.subscription, users)
        possible: dict[RecordingKey, tuple[AudioTrack, ...]] = {}
        for key, tracks in desired.items():
            if not _is_held(wanted, key, tracks):
                if tracks[0].key not in task.refused:
                    await uow.append(_not_held(wanted, key, tracks))
                    applies.append(partial(task.refused.add, tracks[0].key))
                continue
            possible[key] = tracks
            recording_id = task.recordings.get(key)
            if recording_id is None:
                recording_id = self._ids.token()
                await self._begin(uow, wanted, recording_id, key)
                facts = self._facts(task, room, recording_id, key, uow.now_ns)
                applies.append(self._starter(task, room, key, facts))
            applies.append(_setter(room, recording_id, tracks))
        for key, recording_id in task.recordings.items():
            if key not in possible:
                applies.append(_setter(room, recording_id, ()))
        applies += await self._move(uow, task, wanted, bool(possible))
        return applies

    def resume(
        self, task: LiveTask, room: LiveRoom, rows: Sequence[RecordingRow], resumed: Sequence[FeedRecording]
    ) -> None:
        """Goes on with the stored recordings of a task; `resumed` has their resume points and tracks."""
        for row, recording in zip(rows, resumed, strict=True):
            task.recordings[recording_key(row)] = row.recording_id
            room.feed.start_recording(recording)
            self._pool.register(room.feed, row.recording_id)

    def facts_of(self, task: LiveTask, room: LiveRoom, row: RecordingRow) -> RecordingFacts:
        """What workers must know of a stored recording."""
        return self._facts(task, room, row.recording_id, recording_key(row), row.start_ns)

    async def _begin(
        self, uow: UnitOfWork, task: task_pb2.Task, recording_id: str, key: RecordingKey
    ) -> None:
        row = RecordingRow(
            recording_id=recording_id,
            task_id=task.task_id,
            app_id=task.app_id,
            kind=key.kind,
            user_id=key.user_id,
            start_ns=uow.now_ns,
            end_ns=None,
        )
        await recording_rows.insert_recording(uow.connection, row)
        await uow.append(recording_event(event_pb2.EVENT_TYPE_RECORDING_STARTED, task, recording_proto(row)))

    def _facts(
        self,
        task: LiveTask,
        room: LiveRoom,
        recording_id: str,
        key: RecordingKey,
        now_ns: int,
    ) -> RecordingFacts:
        output = task.proto.output
        is_mix = key.kind == segment_pb2.RECORDING_KIND_MIXED
        # A user may come back with another codec: of a single's containers each segment has those that hold it.
        containers = output.mixed_containers if is_mix else output.single_containers
        is_live = room.clock != room_pb2.ROOM_CLOCK_MEDIA
        return RecordingFacts(
            recording_id=recording_id,
            task_id=task.task_id,
            kind=_KINDS[key.kind],
            containers=tuple(CONTAINERS[each] for each in containers),
            segment_ns=output.segment_duration.ToNanoseconds(),
            segment_bytes=task.profile.segment_bytes,
            bitrate=output.audio_bitrate_bps,
            sample_rate=output.audio_sample_rate_hz,
            channels=output.audio_channels,
            mute_ends_segment=task.profile.mute_ends_segment,
            break_wait_ns=task.profile.break_wait_ns,
            # On a MEDIA clock everything that has not been acknowledged belongs to the recording, whatever its time.
            from_ns=now_ns if is_live else 0,
        )

    def _starter(self, task: LiveTask, room: LiveRoom, key: RecordingKey, facts: RecordingFacts) -> Apply:
        def apply() -> None:
            task.recordings[key] = facts.recording_id
            room.feed.start_recording(FeedRecording(facts))
            self._pool.register(room.feed, facts.recording_id)

        return apply

    async def _move(
        self, uow: UnitOfWork, task: LiveTask, wanted: task_pb2.Task, is_recording: bool
    ) -> list[Apply]:
        before = task.proto.state
        if is_recording:
            state = task_pb2.TASK_STATE_RECORDING
        elif before == task_pb2.TASK_STATE_WAITING:
            state = before
        else:
            state = task_pb2.TASK_STATE_IDLE
        if state == before:
            return []
        idle_since_ns = uow.now_ns if state == task_pb2.TASK_STATE_IDLE else None
        await task_rows.set_state(uow.connection, task.task_id, state, idle_since_ns)
        after = task_pb2.Task()
        after.CopyFrom(wanted)
        after.state = state
        await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, after, before))

        def apply() -> None:
            task.proto.state = state
            task.idle_since_ns = idle_since_ns

        return [apply]


def recording_key(row: RecordingRow) -> RecordingKey:
    """What a stored recording is of."""
    return RecordingKey(segment_pb2.RecordingKind.ValueType(row.kind), row.user_id)


def recording_proto(row: RecordingRow) -> segment_pb2.Recording:
    """The recording of a row, as the contract has it."""
    return segment_pb2.Recording(
        recording_id=row.recording_id,
        task_id=row.task_id,
        kind=segment_pb2.RecordingKind.ValueType(row.kind),
        user_id=row.user_id,
        start_time=timestamp(row.start_ns),
        end_time=timestamp(row.end_ns) if row.end_ns is not None else None,
    )


def _setter(room: LiveRoom, recording_id: str, tracks: Iterable[AudioTrack]) -> Apply:
    keys = tuple(track.key for track in tracks)

    def apply() -> None:
        if recording_id in room.feed.recordings:
            room.feed.set_tracks(recording_id, keys)

    return apply


def _is_held(task: task_pb2.Task, key: RecordingKey, tracks: Sequence[AudioTrack]) -> bool:
    if key.kind == segment_pb2.RECORDING_KIND_MIXED:
        return True
    return bool(writable(task.output.single_containers, tracks[0].codec))


def _not_held(task: task_pb2.Task, key: RecordingKey, tracks: Sequence[AudioTrack]) -> event_pb2.Event:
    message = (
        f"The user {key.user_id!r} publishes PCM, and none of the task's containers holds PCM; add WAV or MP3 to "
        "single_containers."
    )
    reason = error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER
    return warning_event(task, reason, message, user_id=key.user_id)
