"""Every event reads as one line."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.cli.event_text import event_name, event_text, is_bad_news

SEGMENT = segment_pb2.Segment(
    user_id="ada",
    segment_id=3,
    kind=segment_pb2.RECORDING_KIND_SINGLE,
    container=media_pb2.CONTAINER_MP3,
    duration=Duration(seconds=8, nanos=460_000_000),
    size_bytes=68_160,
    url="s3://bucket/key.mp3",
)
GONE = segment_pb2.Segment()
GONE.CopyFrom(SEGMENT)
GONE.url = ""
JOINED = segment_pb2.Segment()
JOINED.CopyFrom(SEGMENT)
JOINED.joined_segments = 4
BAD_NEWS = ("segment-upload-delayed", "segment-lost", "segment-abandoned", "gap", "interrupted", "warning")
MIX = segment_pb2.Segment(kind=segment_pb2.RECORDING_KIND_MIXED, container=media_pb2.CONTAINER_WAV)
ADA = event_pb2.ParticipantDetail(user_id="ada")
TRACK = room_pb2.Track(track_id="mic", codec=media_pb2.CODEC_OPUS, sample_rate_hz=48_000, channels=2)
TASK = task_pb2.Task(
    mode=task_pb2.RECORD_MODE_MIXED,
    state=task_pb2.TASK_STATE_FINALIZING,
    stop_reason=task_pb2.STOP_REASON_ROOM_CLOSED,
)

T = event_pb2.EventType


@pytest.mark.parametrize(
    ("event", "name", "text"),
    [
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_ROOM_CREATED,
                room=event_pb2.RoomDetail(room=room_pb2.Room(clock=room_pb2.ROOM_CLOCK_MEDIA)),
            ),
            "room-created",
            "media clock",
        ),
        (
            event_pb2.Event(type=event_pb2.EVENT_TYPE_PARTICIPANT_JOINED, participant=ADA),
            "participant-joined",
            "ada",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_PARTICIPANT_LEFT,
                participant=event_pb2.ParticipantDetail(user_id="ada", participant_count=2),
            ),
            "participant-left",
            "ada  2 in the room",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_PARTICIPANT_LEFT,
                participant=event_pb2.ParticipantDetail(
                    user_id="ada", leave_reason=event_pb2.LEAVE_REASON_LOST
                ),
            ),
            "participant-left",
            "ada  lost",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_TRACK_STARTED,
                participant=event_pb2.ParticipantDetail(user_id="ada", track=TRACK),
            ),
            "track-started",
            "ada mic opus 48000 Hz × 2",
        ),
        (
            event_pb2.Event(type=event_pb2.EVENT_TYPE_TASK_STARTED, task=event_pb2.TaskDetail(task=TASK)),
            "task-started",
            "mixed",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_TASK_STATE_CHANGED,
                task=event_pb2.TaskDetail(task=TASK, previous_state=task_pb2.TASK_STATE_IDLE),
            ),
            "task-state-changed",
            "idle → finalizing",
        ),
        (
            event_pb2.Event(type=event_pb2.EVENT_TYPE_TASK_STOPPED, task=event_pb2.TaskDetail(task=TASK)),
            "task-stopped",
            "by room-closed",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE, task=event_pb2.TaskDetail(task=TASK)
            ),
            "task-files-complete",
            "every file is in the store",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_RECORDING_STARTED,
                recording=event_pb2.RecordingDetail(
                    recording=segment_pb2.Recording(kind=segment_pb2.RECORDING_KIND_MIXED)
                ),
            ),
            "recording-started",
            "the mix",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, segment=event_pb2.SegmentDetail(segment=SEGMENT)
            ),
            "segment-uploaded",
            "ada #3 mp3  8.460 s  66.6 KiB  s3://bucket/key.mp3",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS,
                segment=event_pb2.SegmentDetail(segment=GONE, sent_bytes=2048),
            ),
            "segment-upload-progress",
            "ada #3 mp3  2.0 KiB of 66.6 KiB",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED,
                segment=event_pb2.SegmentDetail(
                    segment=MIX, error_code="AccessDenied", message="Allow s3:PutObject."
                ),
            ),
            "segment-upload-delayed",
            "the mix #0 wav  AccessDenied: Allow s3:PutObject.",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_DELETED,
                segment=event_pb2.SegmentDetail(segment=GONE),
            ),
            "segment-deleted",
            "ada #3 mp3  8.460 s  66.6 KiB",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_EXPIRED,
                segment=event_pb2.SegmentDetail(segment=GONE),
            ),
            "segment-expired",
            "ada #3 mp3  8.460 s  66.6 KiB",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
                segment=event_pb2.SegmentDetail(segment=GONE),
            ),
            "segment-abandoned",
            "ada #3 mp3  8.460 s  66.6 KiB",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENT_LOST,
                segment=event_pb2.SegmentDetail(segment=MIX, error_code="SourceDiffers", message="Why."),
            ),
            "segment-lost",
            "the mix #0 wav  SourceDiffers: Why.",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_SEGMENTS_JOINED,
                segment=event_pb2.SegmentDetail(segment=JOINED),
            ),
            "segments-joined",
            "ada #3-6 mp3  8.460 s  66.6 KiB  s3://bucket/key.mp3",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_GAP,
                gap=event_pb2.GapDetail(
                    user_id="ada",
                    start_time=Timestamp(seconds=5),
                    end_time=Timestamp(seconds=7, nanos=500_000_000),
                    reason=event_pb2.GAP_REASON_PUBLISHER_LOST,
                ),
            ),
            "gap",
            "2.500 s of ada missing: publisher-lost",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_INTERRUPTED,
                interrupted=event_pb2.InterruptedDetail(
                    recording_id="r1", segment_id=2, cause=event_pb2.INTERRUPTION_CAUSE_WORKER_LOST
                ),
            ),
            "interrupted",
            "recording r1 #2: worker-lost",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_WARNING,
                warning=event_pb2.WarningDetail(
                    reason=error_pb2.ERROR_REASON_SPOOL_UNWRITABLE, message="No space left."
                ),
            ),
            "warning",
            "spool-unwritable: No space left.",
        ),
        (
            event_pb2.Event(
                type=event_pb2.EVENT_TYPE_WARNING,
                warning=event_pb2.WarningDetail(
                    reason=error_pb2.ERROR_REASON_SPOOL_FULL, message="No space left.", count=25
                ),
            ),
            "warning",
            "spool-full: No space left.  × 25",
        ),
        (event_pb2.Event(type=T.ValueType(999)), "999", ""),
    ],
)
def test_an_event_is_one_line(event: event_pb2.Event, name: str, text: str) -> None:
    assert event_name(event) == name
    assert event_text(event) == text
    assert is_bad_news(event) == (name in BAD_NEWS)


def test_every_detail_is_read() -> None:
    for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["detail"].fields:
        event = event_pb2.Event()
        getattr(event, field.name).SetInParent()
        event_text(event)
