"""As Volcengine RTC calls back (volcengine.com 6348/75124, 6348/69820; docs.byteplus.com 75125).

`Signature` in the body is the SHA-256, in hexadecimal, of the values of the other seven fields and of the key, sorted
as strings and written one after the other. `EventData` is JSON in a string.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import event_pb2, media_pb2, segment_pb2
from roomtape_service.webhooks.formats.format import (
    Delivery,
    FormatContext,
    Need,
    RandomBytes,
    Request,
    SigningKey,
)
from roomtape_service.webhooks.formats.signing import (
    JSON_HEADERS,
    check_vendor_key,
    compact,
    hex_digest,
    make_vendor_key,
    milliseconds,
    vendor_key,
)

__all__ = ["VolcFormat", "signature"]

_VERSION = "2020-12-01"
"""Of the callbacks, whatever the version of the calls."""
_APP_ID = re.compile(r"[A-Za-z0-9_@.\-]{1,128}")
_NONCES = 10_000
"""Four digits."""
_OK, _FAILED = 0, 1
_CAMERA = 0

_NAMES: Mapping[event_pb2.EventType.ValueType, str] = {
    event_pb2.EVENT_TYPE_ROOM_CLOSED: "RoomDestroy",
    event_pb2.EVENT_TYPE_PARTICIPANT_JOINED: "UserJoinRoom",
    event_pb2.EVENT_TYPE_PARTICIPANT_LEFT: "UserLeaveRoom",
    event_pb2.EVENT_TYPE_TASK_STARTED: "RecordStarted",
    event_pb2.EVENT_TYPE_SEGMENT_COMPLETED: "RecordUploadStarted",
    event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS: "RecordUploadProcessing",
    event_pb2.EVENT_TYPE_SEGMENT_UPLOADED: "RecordUploadDone",
    # The list of files must be whole, and it is when the last one is in the store.
    event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE: "RecordStopped",
}
_NEEDS = {
    event_pb2.EVENT_TYPE_SEGMENT_COMPLETED: Need.TASK,
    event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS: Need.TASK,
    event_pb2.EVENT_TYPE_SEGMENT_UPLOADED: Need.TASK,
    event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE: Need.SEGMENTS,
}


class VolcFormat:
    """Tasks, their files, and who is in the room."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        return type in _NAMES

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        return _NEEDS.get(type, Need.NOTHING)

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        if event.HasField("segment") and event.segment.segment.joined_segments:
            return []
        signed = {
            "EventType": _NAMES[event.type],
            "EventData": compact(_data(event, context)),
            "EventTime": _time(event.event_time),
            "EventId": delivery.delivery_id,
            "AppId": context.vendor_app_id,
            "Version": _VERSION,
            "Nonce": _nonce(delivery),
        }
        content = {**signed, "Signature": signature(signed.values(), vendor_key(keys).decode())}
        return [Request(JSON_HEADERS, compact(content).encode())]

    def check_key(self, value: str) -> None:
        check_vendor_key(value)

    def make_key(self, randomness: RandomBytes) -> str:
        return make_vendor_key(randomness)

    def check_app_id(self, vendor_app_id: str) -> None:
        if not _APP_ID.fullmatch(vendor_app_id):
            raise ValueError(f"AppId is 1 to 128 letters, digits and _ @ - ., and not {vendor_app_id!r}")


def signature(values: Iterable[str], key: str) -> str:
    """Of the values of all fields but itself, in any order."""
    return hex_digest("".join(sorted([*values, key])), "sha256")


def _nonce(delivery: Delivery) -> str:
    """Another one in each attempt, and the same whenever this attempt is made."""
    digest = hashlib.sha256(f"{delivery.delivery_id}.{delivery.attempt_ns}".encode()).digest()
    return f"{int.from_bytes(digest[:8], 'big') % _NONCES:04}"


def _time(time: Timestamp) -> str:
    whole = datetime.fromtimestamp(time.seconds, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{time.nanos:09}Z"


def _data(event: event_pb2.Event, context: FormatContext) -> Mapping[str, object]:
    if event.HasField("room"):
        return {"RoomId": event.room_id, "Timestamp": milliseconds(event.event_time)}
    if event.HasField("participant"):
        who = {"RoomId": event.room_id, "UserId": event.participant.user_id, "DeviceType": ""}
        if event.type == event_pb2.EVENT_TYPE_PARTICIPANT_LEFT:
            is_lost = event.participant.leave_reason == event_pb2.LEAVE_REASON_LOST
            who["Reason"] = "connectionLost" if is_lost else "userLeave"
        return {**who, "Timestamp": milliseconds(event.event_time)}
    return _task_data(event, context)


def _task_data(event: event_pb2.Event, context: FormatContext) -> Mapping[str, object]:
    task = context.facts.task if context.facts is not None else event.task.task
    content: dict[str, object] = {
        "AppId": context.vendor_app_id,
        "BusinessId": "",
        "RoomId": event.room_id,
        # With Volcengine the caller chooses it.
        "TaskId": task.client_task_id or event.task_id,
        "Code": _OK,
        "ErrorMessage": "",
    }
    if event.HasField("segment"):
        content["RecordFileList"] = [_file(event.segment.segment)]
    elif event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
        segments = context.facts.segments if context.facts is not None else ()
        stored = [each for each in segments if each.state == segment_pb2.SEGMENT_STATE_UPLOADED]
        content["RecordFileList"] = [_file(each) for each in stored]
        if segments and not stored:
            content |= {"Code": _FAILED, "ErrorMessage": "no file of the task is in a store"}
    return content


def _file(segment: segment_pb2.Segment) -> Mapping[str, object]:
    is_mix = segment.kind == segment_pb2.RECORDING_KIND_MIXED
    codec = media_pb2.Codec.Name(segment.codec).removeprefix("CODEC_")
    return {
        "Vid": segment.file_id,
        "ObjectKey": segment.object_key,
        "Duration": segment.duration.ToMilliseconds(),
        "Size": segment.size_bytes,
        "StartTime": milliseconds(segment.start_time),
        "StreamList": [] if is_mix else [{"Index": 0, "UserId": segment.user_id, "StreamType": _CAMERA}],
        "AudioCodec": codec,
        "VideoCodec": "",
        "VideoWidth": 0,
        "VideoHeight": 0,
    }
