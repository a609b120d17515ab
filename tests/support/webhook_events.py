"""An event of each type, and of each kind of a type that a vendor tells apart, with the facts of its task."""

from collections.abc import Mapping
from dataclasses import dataclass

from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.events import build
from roomtape_service.webhooks.formats.format import Delivery, TaskFacts

__all__ = ["APP_ID", "DELIVERY", "TOLD", "Told"]

APP_ID = "1400000000"
_ROOM_ID = "100"
_TASK_ID = "446946705284000000"
_START_NS = 1_675_930_605_250_000_000
_EVENT_NS = 1_675_930_610_123_456_789
_SECOND = 1_000_000_000

DELIVERY = Delivery("0000000000000000002a", 1_675_930_611_987_000_000)
"""The attempt in which all of them are sent."""

_ROOM = room_pb2.Room(app_id=APP_ID, room_id=_ROOM_ID, clock=room_pb2.ROOM_CLOCK_ARRIVAL)
_ADA = room_pb2.Participant(user_id="999", publish_session_id="session-1")
_BUCKET = "cos:ap-guangzhou:recordings-1250000000"


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and what a format may ask of its task."""

    event: event_pb2.Event
    facts: TaskFacts | None = None


def _task(
    state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_RECORDING,
    stop_reason: task_pb2.StopReason.ValueType = task_pb2.STOP_REASON_UNSPECIFIED,
) -> task_pb2.Task:
    return task_pb2.Task(
        task_id=_TASK_ID,
        app_id=APP_ID,
        room_id=_ROOM_ID,
        client_task_id="lesson-7",
        mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
        state=state,
        stop_reason=stop_reason,
        labels={"course": "math"},
    )


def _segment(
    state: segment_pb2.SegmentState.ValueType = segment_pb2.SEGMENT_STATE_UPLOADED,
    *,
    store: str = _BUCKET,
    is_mix: bool = False,
    segment_id: int = 0,
    joined_segments: int = 0,
) -> segment_pb2.Segment:
    name = f"2023-02-09-16-16-45_{segment_id}_audio.mp3"
    segment = segment_pb2.Segment(
        file_id=f"file-{segment_id}{'m' if is_mix else ''}",
        recording_id="recording-2" if is_mix else "recording-1",
        task_id=_TASK_ID,
        room_id=_ROOM_ID,
        kind=segment_pb2.RECORDING_KIND_MIXED if is_mix else segment_pb2.RECORDING_KIND_SINGLE,
        user_id="" if is_mix else "999",
        segment_id=segment_id,
        container=media_pb2.CONTAINER_MP3,
        codec=media_pb2.CODEC_MP3,
        state=state,
        object_key=f"{APP_ID}_100/{_TASK_ID}_{name}" if is_mix else f"{APP_ID}_100_999/{name}",
        sample_rate_hz=48_000,
        channels=1,
        store=store,
        joined_segments=joined_segments,
    )
    segment.start_time.FromNanoseconds(_START_NS)
    if state != segment_pb2.SEGMENT_STATE_RECORDING:
        segment.end_time.FromNanoseconds(_START_NS + 4 * _SECOND + _SECOND // 2)
        segment.duration.FromNanoseconds(4 * _SECOND + _SECOND // 2)
        segment.size_bytes, segment.sample_count, segment.sha256 = 36_864, 216_000, "5e" * 32
    if state == segment_pb2.SEGMENT_STATE_UPLOADED:
        place = "file:///var/lib/roomtape" if store.startswith("disk:") else "s3://recordings-1250000000"
        segment.url = f"{place}/{segment.object_key}"
    return segment


def _track(source: media_pb2.TrackSource.ValueType, *, muted: bool = False) -> room_pb2.Track:
    return room_pb2.Track(
        track_id="voice",
        source=source,
        codec=media_pb2.CODEC_OPUS,
        sample_rate_hz=48_000,
        channels=1,
        muted=muted,
    )


_MICROPHONE = _track(media_pb2.TRACK_SOURCE_MAIN)
_SCREEN = _track(media_pb2.TRACK_SOURCE_AUX)
_SILENT = _track(media_pb2.TRACK_SOURCE_MAIN, muted=True)
_SILENT_SCREEN = _track(media_pb2.TRACK_SOURCE_AUX, muted=True)


def _of_participant(event_type: event_pb2.EventType.ValueType, track: room_pb2.Track | None = None) -> Told:
    return _told(build.participant_event(event_type, _ROOM, _ADA, track))


def _lost() -> Told:
    told = _of_participant(event_pb2.EVENT_TYPE_PARTICIPANT_LEFT)
    told.event.participant.leave_reason = event_pb2.LEAVE_REASON_LOST
    return told


def _of_task(
    event_type: event_pb2.EventType.ValueType,
    task: task_pb2.Task,
    previous: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_UNSPECIFIED,
    *segments: segment_pb2.Segment,
) -> Told:
    return _told(build.task_event(event_type, task, previous), *segments, task=task)


def _of_segment(
    event_type: event_pb2.EventType.ValueType, segment: segment_pb2.Segment, **more: str | int
) -> Told:
    event = build.segment_event(event_type, APP_ID, segment)
    for name, value in more.items():
        setattr(event.segment, name, value)
    return _told(event)


def _told(event: event_pb2.Event, *segments: segment_pb2.Segment, task: task_pb2.Task | None = None) -> Told:
    event.sequence = 7
    event.event_time.FromNanoseconds(_EVENT_NS)
    if not event.task_id:
        return Told(event)
    event.task_sequence = 3
    event.labels["course"] = "math"
    return Told(event, TaskFacts(task or _task(), segments))


def _recording(*, ended: bool) -> segment_pb2.Recording:
    recording = segment_pb2.Recording(
        recording_id="recording-1",
        task_id=_TASK_ID,
        kind=segment_pb2.RECORDING_KIND_SINGLE,
        user_id="999",
    )
    recording.start_time.FromNanoseconds(_START_NS)
    if ended:
        recording.end_time.FromNanoseconds(_EVENT_NS)
    return recording


_COMPLETED = _task(task_pb2.TASK_STATE_COMPLETED, task_pb2.STOP_REASON_API)
_COMPLETE = event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE
_LOST = segment_pb2.SEGMENT_STATE_LOST
_SPOOLED = segment_pb2.SEGMENT_STATE_SPOOLED
_NO_STATE = task_pb2.TASK_STATE_UNSPECIFIED
_FOLDER = "disk:app"

TOLD: Mapping[str, Told] = {
    "room created": _told(build.room_event(event_pb2.EVENT_TYPE_ROOM_CREATED, _ROOM)),
    "room closed": _told(build.room_event(event_pb2.EVENT_TYPE_ROOM_CLOSED, _ROOM)),
    "participant joined": _of_participant(event_pb2.EVENT_TYPE_PARTICIPANT_JOINED),
    "participant left": _of_participant(event_pb2.EVENT_TYPE_PARTICIPANT_LEFT),
    "participant lost": _lost(),
    "track started": _of_participant(event_pb2.EVENT_TYPE_TRACK_STARTED, _MICROPHONE),
    "track started, screen": _of_participant(event_pb2.EVENT_TYPE_TRACK_STARTED, _SCREEN),
    "track started, muted": _of_participant(event_pb2.EVENT_TYPE_TRACK_STARTED, _SILENT),
    "track stopped": _of_participant(event_pb2.EVENT_TYPE_TRACK_STOPPED, _MICROPHONE),
    "track muted": _of_participant(event_pb2.EVENT_TYPE_TRACK_MUTED, _SILENT),
    "track muted, screen": _of_participant(event_pb2.EVENT_TYPE_TRACK_MUTED, _SILENT_SCREEN),
    "track unmuted": _of_participant(event_pb2.EVENT_TYPE_TRACK_UNMUTED, _MICROPHONE),
    "track unmuted, screen": _of_participant(event_pb2.EVENT_TYPE_TRACK_UNMUTED, _SCREEN),
    "task started": _of_task(event_pb2.EVENT_TYPE_TASK_STARTED, _task(task_pb2.TASK_STATE_WAITING)),
    "task records": _of_task(event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, _task(), task_pb2.TASK_STATE_WAITING),
    "task records again": _of_task(
        event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, _task(), task_pb2.TASK_STATE_IDLE
    ),
    "task modified": _of_task(event_pb2.EVENT_TYPE_TASK_MODIFIED, _task()),
    "task stopped": _of_task(
        event_pb2.EVENT_TYPE_TASK_STOPPED,
        _task(task_pb2.TASK_STATE_FINALIZING, task_pb2.STOP_REASON_API),
    ),
    "task stopped, room closed": _of_task(
        event_pb2.EVENT_TYPE_TASK_STOPPED,
        _task(task_pb2.TASK_STATE_FINALIZING, task_pb2.STOP_REASON_ROOM_CLOSED),
    ),
    "task stopped, nobody came": _of_task(
        event_pb2.EVENT_TYPE_TASK_STOPPED,
        _task(task_pb2.TASK_STATE_FINALIZING, task_pb2.STOP_REASON_IDLE_TIMEOUT),
    ),
    "files complete": _of_task(
        _COMPLETE, _COMPLETED, _NO_STATE, _segment(), _segment(segment_id=1), _segment(is_mix=True)
    ),
    "files complete, one lost": _of_task(
        _COMPLETE, _COMPLETED, _NO_STATE, _segment(_LOST), _segment(segment_id=1)
    ),
    "files complete, all lost": _of_task(_COMPLETE, _COMPLETED, _NO_STATE, _segment(_LOST)),
    "files complete, in a folder": _of_task(_COMPLETE, _COMPLETED, _NO_STATE, _segment(store=_FOLDER)),
    "files complete, in both": _of_task(
        _COMPLETE, _COMPLETED, _NO_STATE, _segment(), _segment(segment_id=1, store=_FOLDER)
    ),
    "files complete, none": _of_task(_COMPLETE, _COMPLETED),
    "recording started": _told(
        build.recording_event(event_pb2.EVENT_TYPE_RECORDING_STARTED, _task(), _recording(ended=False))
    ),
    "recording ended": _told(
        build.recording_event(event_pb2.EVENT_TYPE_RECORDING_ENDED, _task(), _recording(ended=True))
    ),
    "segment started": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_STARTED, _segment(segment_pb2.SEGMENT_STATE_RECORDING)
    ),
    "segment started, mix": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_STARTED, _segment(segment_pb2.SEGMENT_STATE_RECORDING, is_mix=True)
    ),
    "segment completed": _of_segment(event_pb2.EVENT_TYPE_SEGMENT_COMPLETED, _segment(_SPOOLED)),
    "segment uploaded": _of_segment(event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, _segment()),
    "segment uploaded, mix": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, _segment(is_mix=True, segment_id=1)
    ),
    "segment uploaded, to a folder": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, _segment(store=_FOLDER)
    ),
    "segment delayed": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED,
        _segment(segment_pb2.SEGMENT_STATE_UPLOADING),
        error_code="AccessDenied",
        message="The store refuses the key.",
    ),
    "segment on its way": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS,
        _segment(segment_pb2.SEGMENT_STATE_UPLOADING),
        sent_bytes=16_384,
    ),
    "segment deleted": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_DELETED, _segment(segment_pb2.SEGMENT_STATE_DELETED)
    ),
    "segment expired": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_EXPIRED, _segment(segment_pb2.SEGMENT_STATE_EXPIRED)
    ),
    "segment lost": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_LOST,
        _segment(_LOST),
        error_code="SPOOL_FILE_MISSING",
        message="The file is not there.",
    ),
    "segment lost, in a folder": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_LOST, _segment(_LOST, store=_FOLDER), message="The file is not there."
    ),
    "segment abandoned": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED, _segment(segment_pb2.SEGMENT_STATE_ABANDONED)
    ),
    "segment abandoned, in a folder": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
        _segment(segment_pb2.SEGMENT_STATE_ABANDONED, store=_FOLDER),
    ),
    "joined file abandoned": _of_segment(
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
        _segment(segment_pb2.SEGMENT_STATE_ABANDONED, joined_segments=2),
    ),
    "segments joined": _of_segment(event_pb2.EVENT_TYPE_SEGMENTS_JOINED, _segment(joined_segments=2)),
    "gap": _told(
        build.gap_event(
            _task(), "recording-1", "999", _START_NS, _EVENT_NS, event_pb2.GAP_REASON_PUBLISHER_LOST
        )
    ),
    "interrupted": _told(
        build.interrupted_event(_task(), "recording-1", 0, event_pb2.INTERRUPTION_CAUSE_NODE_LOST)
    ),
    "interrupted, full disk": _told(
        build.interrupted_event(_task(), "recording-1", 0, event_pb2.INTERRUPTION_CAUSE_SPOOL_FULL)
    ),
    "warning": _told(
        build.warning_event(_task(), error_pb2.ERROR_REASON_SPOOL_NEARLY_FULL, "The disk is nearly full.")
    ),
}
