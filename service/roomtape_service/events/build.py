"""Events as they are appended to the log: one function for each kind of detail."""

from roomtape.v1 import error_pb2, event_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.rooms.room import timestamp

__all__ = [
    "gap_event",
    "interrupted_event",
    "participant_event",
    "recording_event",
    "room_event",
    "segment_event",
    "task_event",
    "warning_event",
]

_OF_LIBRARY = frozenset({event_pb2.EVENT_TYPE_SEGMENT_DELETED, event_pb2.EVENT_TYPE_SEGMENT_EXPIRED})


def room_event(event_type: event_pb2.EventType.ValueType, room: room_pb2.Room) -> event_pb2.Event:
    """ROOM_CREATED, ROOM_CLOSED."""
    return event_pb2.Event(
        type=event_type, app_id=room.app_id, room_id=room.room_id, room=event_pb2.RoomDetail(room=room)
    )


def participant_event(
    event_type: event_pb2.EventType.ValueType,
    room: room_pb2.Room,
    participant: room_pb2.Participant,
    track: room_pb2.Track | None = None,
) -> event_pb2.Event:
    """PARTICIPANT_* without, TRACK_* with a track."""
    detail = event_pb2.ParticipantDetail(
        user_id=participant.user_id, publish_session_id=participant.publish_session_id, track=track
    )
    return event_pb2.Event(type=event_type, app_id=room.app_id, room_id=room.room_id, participant=detail)


def task_event(
    event_type: event_pb2.EventType.ValueType,
    task: task_pb2.Task,
    previous: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_UNSPECIFIED,
) -> event_pb2.Event:
    """TASK_*: `task` is the task after the event; `previous` only for TASK_STATE_CHANGED."""
    detail = event_pb2.TaskDetail(task=task, previous_state=previous)
    return event_pb2.Event(
        type=event_type, app_id=task.app_id, room_id=task.room_id, task_id=task.task_id, task=detail
    )


def recording_event(
    event_type: event_pb2.EventType.ValueType, task: task_pb2.Task, recording: segment_pb2.Recording
) -> event_pb2.Event:
    """RECORDING_STARTED, RECORDING_ENDED."""
    event = _of_task(event_type, task)
    event.recording.recording.CopyFrom(recording)
    return event


def segment_event(
    event_type: event_pb2.EventType.ValueType, app_id: str, segment: segment_pb2.Segment
) -> event_pb2.Event:
    """SEGMENT_*, SEGMENTS_JOINED: `segment` is the segment after the event.

    Of no task where the task's last event may have come before.
    """
    is_of_task = event_type not in _OF_LIBRARY and not segment.joined_segments
    return event_pb2.Event(
        type=event_type,
        app_id=app_id,
        room_id=segment.room_id,
        task_id=segment.task_id if is_of_task else "",
        segment=event_pb2.SegmentDetail(segment=segment),
    )


def gap_event(
    task: task_pb2.Task,
    recording_id: str,
    user_id: str,
    from_ns: int,
    to_ns: int,
    reason: event_pb2.GapReason.ValueType,
) -> event_pb2.Event:
    """GAP: a user's media between two room times is missing."""
    event = _of_task(event_pb2.EVENT_TYPE_GAP, task)
    event.gap.CopyFrom(
        event_pb2.GapDetail(
            recording_id=recording_id,
            user_id=user_id,
            start_time=timestamp(from_ns),
            end_time=timestamp(to_ns),
            reason=reason,
        )
    )
    return event


def interrupted_event(
    task: task_pb2.Task, recording_id: str, segment_id: int, cause: event_pb2.InterruptionCause.ValueType
) -> event_pb2.Event:
    """INTERRUPTED: a segment ended by a fault."""
    event = _of_task(event_pb2.EVENT_TYPE_INTERRUPTED, task)
    event.interrupted.CopyFrom(
        event_pb2.InterruptedDetail(recording_id=recording_id, segment_id=segment_id, cause=cause)
    )
    return event


def warning_event(
    task: task_pb2.Task,
    reason: error_pb2.ErrorReason.ValueType,
    message: str,
    recording_id: str = "",
    user_id: str = "",
) -> event_pb2.Event:
    """WARNING: something of a task needs attention."""
    event = _of_task(event_pb2.EVENT_TYPE_WARNING, task)
    event.warning.CopyFrom(
        event_pb2.WarningDetail(reason=reason, message=message, recording_id=recording_id, user_id=user_id)
    )
    return event


def _of_task(event_type: event_pb2.EventType.ValueType, task: task_pb2.Task) -> event_pb2.Event:
    return event_pb2.Event(type=event_type, app_id=task.app_id, room_id=task.room_id, task_id=task.task_id)
