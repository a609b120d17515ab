"""An event as one line for people."""

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.cli.enums import label
from roomtape_service.cli.texts import segment_numbers, show_size, show_span

__all__ = ["event_name", "event_text", "is_bad_news"]

_BAD_NEWS = frozenset(
    {
        event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED,
        event_pb2.EVENT_TYPE_SEGMENT_LOST,
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
        event_pb2.EVENT_TYPE_GAP,
        event_pb2.EVENT_TYPE_INTERRUPTED,
        event_pb2.EVENT_TYPE_WARNING,
    }
)


def is_bad_news(event: event_pb2.Event) -> bool:
    """Whether somebody should look at it."""
    return event.type in _BAD_NEWS


def event_name(event: event_pb2.Event) -> str:
    """The type, such as `segment-uploaded`; its number for one that is newer than this program."""
    return label(event_pb2.EventType.DESCRIPTOR, event.type)


def event_text(event: event_pb2.Event) -> str:
    """What the event is about, beside its type, room and task."""
    match event.WhichOneof("detail"):
        case "room":
            return _room(event.room.room)
        case "participant":
            return _participant(event.participant)
        case "task":
            return _task(event)
        case "recording":
            return _of_whom(event.recording.recording.kind, event.recording.recording.user_id)
        case "segment":
            return _segment(event.segment)
        case "gap":
            gap = event.gap
            reason = label(event_pb2.GapReason.DESCRIPTOR, gap.reason)
            span = show_span(_ns(gap.end_time) - _ns(gap.start_time))
            return f"{span} of {gap.user_id or 'the mix'} missing: {reason}"
        case "interrupted":
            cause = label(event_pb2.InterruptionCause.DESCRIPTOR, event.interrupted.cause)
            return f"recording {event.interrupted.recording_id} #{event.interrupted.segment_id}: {cause}"
        case "warning":
            reason = label(error_pb2.ErrorReason.DESCRIPTOR, event.warning.reason)
            times = f"  × {event.warning.count}" if event.warning.count > 1 else ""
            return f"{reason}: {event.warning.message}{times}"
        case _:
            return ""


def _room(room: room_pb2.Room) -> str:
    return f"{label(room_pb2.RoomClock.DESCRIPTOR, room.clock)} clock"


def _participant(detail: event_pb2.ParticipantDetail) -> str:
    if not detail.HasField("track"):
        count = detail.participant_count
        reason = label(event_pb2.LeaveReason.DESCRIPTOR, detail.leave_reason)
        parts = [detail.user_id, reason, f"{count} in the room" if count else ""]
        return "  ".join(part for part in parts if part)
    track = detail.track
    codec = label(media_pb2.Codec.DESCRIPTOR, track.codec)
    return f"{detail.user_id} {track.track_id} {codec} {track.sample_rate_hz} Hz × {track.channels}"


def _task(event: event_pb2.Event) -> str:
    task, states = event.task.task, task_pb2.TaskState.DESCRIPTOR
    match event.type:
        case event_pb2.EVENT_TYPE_TASK_STATE_CHANGED:
            return f"{label(states, event.task.previous_state)} → {label(states, task.state)}"
        case event_pb2.EVENT_TYPE_TASK_STOPPED:
            return f"by {label(task_pb2.StopReason.DESCRIPTOR, task.stop_reason)}"
        case event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            return "every file is in the store"
        case _:
            return label(task_pb2.RecordMode.DESCRIPTOR, task.mode)


def _segment(detail: event_pb2.SegmentDetail) -> str:
    segment = detail.segment
    whom = _of_whom(segment.kind, segment.user_id)
    parts = [f"{whom} #{segment_numbers(segment)} {label(media_pb2.Container.DESCRIPTOR, segment.container)}"]
    if detail.sent_bytes:
        return f"{parts[0]}  {show_size(detail.sent_bytes)} of {show_size(segment.size_bytes)}"
    if segment.HasField("duration"):
        parts += [show_span(segment.duration.ToNanoseconds()), show_size(segment.size_bytes)]
    if segment.url:
        parts.append(segment.url)
    if detail.message:
        parts.append(f"{detail.error_code}: {detail.message}")
    return "  ".join(parts)


def _of_whom(kind: segment_pb2.RecordingKind.ValueType, user_id: str) -> str:
    return "the mix" if kind == segment_pb2.RECORDING_KIND_MIXED else user_id


def _ns(time: Timestamp) -> int:
    return time.ToNanoseconds()
