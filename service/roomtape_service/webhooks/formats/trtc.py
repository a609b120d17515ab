"""As Tencent TRTC calls back about rooms, media (trtc.io 39558) and recordings (trtc.io 54914).

The header `Sign` is the base 64 of HMAC-SHA256 over the body, `SdkAppId` the application's number.

TRTC keeps recordings in a bucket (303, 305, 310) or in its own media library (311, 312). A file of ours in a bucket is
told as the former, a file in the server's own folder, or in a store of the operator's, as the latter.
"""

import posixpath
from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import event_pb2, media_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.webhooks.formats.format import (
    Delivery,
    FormatContext,
    Need,
    RandomBytes,
    Request,
    SigningKey,
)
from roomtape_service.webhooks.formats.signing import (
    check_number,
    check_vendor_key,
    make_vendor_key,
    milliseconds,
    signed_by_header,
)

__all__ = ["LARGEST_SDK_APP_ID", "TrtcFormat", "room_of"]

LARGEST_SDK_APP_ID = 2**32 - 1
_LARGEST_NUMBERED_ROOM = 2**32 - 2
"""A TRTC room is a string or a number from 1 to 4294967294."""

_ROOM_GROUP, _MEDIA_GROUP, _RECORDING_GROUP = 1, 2, 3

_ROBOT = "roomtape"
"""Recordings of TRTC are made by a robot that is in the room under a user id of its own; ours are not."""

_ANCHOR, _TERMINAL_OTHER, _NATIVE_SDK, _NORMAL = 20, 100, 3, 1
_STOPPED_BY_USER = 0
_EXIT_REASONS: Mapping[event_pb2.LeaveReason.ValueType, int] = {
    event_pb2.LEAVE_REASON_LOST: 2,
    event_pb2.LEAVE_REASON_REMOVED: 3,
    event_pb2.LEAVE_REASON_REPLACED: 3,
    event_pb2.LEAVE_REASON_ROOM_CLOSED: 3,
}
_OK, _FAILED, _FILE_FAILED = 0, 1, 2

_LEAVE_CODES: Mapping[task_pb2.StopReason.ValueType, int] = {
    task_pb2.STOP_REASON_API: 0,
    task_pb2.STOP_REASON_ROOM_CLOSED: 2,
    task_pb2.STOP_REASON_IDLE_TIMEOUT: 99,
}
_LEFT_BY_SERVER = 3

_MOVED = frozenset({event_pb2.INTERRUPTION_CAUSE_NODE_LOST, event_pb2.INTERRUPTION_CAUSE_WORKER_LOST})

_BUCKETS = frozenset(
    name.removeprefix("STORAGE_VENDOR_").lower()
    for name in storage_pb2.StorageVendor.DESCRIPTOR.values_by_name
)
"""What `Segment.store` starts with where it is a bucket."""

_KNOWN = frozenset(
    {
        event_pb2.EVENT_TYPE_ROOM_CREATED,
        event_pb2.EVENT_TYPE_ROOM_CLOSED,
        event_pb2.EVENT_TYPE_PARTICIPANT_JOINED,
        event_pb2.EVENT_TYPE_PARTICIPANT_LEFT,
        event_pb2.EVENT_TYPE_TRACK_STARTED,
        event_pb2.EVENT_TYPE_TRACK_MUTED,
        event_pb2.EVENT_TYPE_TRACK_UNMUTED,
        event_pb2.EVENT_TYPE_TASK_STARTED,
        event_pb2.EVENT_TYPE_TASK_STATE_CHANGED,
        event_pb2.EVENT_TYPE_TASK_STOPPED,
        event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE,
        event_pb2.EVENT_TYPE_SEGMENT_STARTED,
        event_pb2.EVENT_TYPE_SEGMENT_UPLOADED,
        event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED,
        event_pb2.EVENT_TYPE_SEGMENT_LOST,
        event_pb2.EVENT_TYPE_SEGMENT_ABANDONED,
        event_pb2.EVENT_TYPE_INTERRUPTED,
    }
)


class TrtcFormat:
    """Rooms (101 to 104), media (203 to 206) and recordings (301 to 312) by TRTC's numbers."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        return type in _KNOWN

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        return Need.SEGMENTS if type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE else Need.NOTHING

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        if event.WhichOneof("detail") in ("room", "participant"):
            told = _of_room(event)
        else:
            told = [(number, _of_task(event, payload)) for number, payload in _payloads(event, context)]
        room_id = event.room_id if context.has_string_room_ids else room_of(event.room_id)
        return [
            signed_by_header(
                "Sign",
                {
                    "EventGroupId": number // 100,
                    "EventType": number,
                    "CallbackTs": delivery.attempt_ns // 1_000_000,
                    "EventInfo": {"RoomId": room_id, **info},
                },
                keys,
                "sha256",
                SdkAppId=context.vendor_app_id,
            )
            for number, info in told
        ]

    def check_key(self, value: str) -> None:
        check_vendor_key(value)

    def make_key(self, randomness: RandomBytes) -> str:
        return make_vendor_key(randomness)

    def check_app_id(self, vendor_app_id: str) -> None:
        check_number(vendor_app_id, "SdkAppId", LARGEST_SDK_APP_ID)


def room_of(room_id: str) -> str | int:
    """A number where TRTC's clients would have one: "of the same type as the client's"."""
    if room_id.isascii() and room_id.isdecimal() and str(number := int(room_id)) == room_id:
        return number if 1 <= number <= _LARGEST_NUMBERED_ROOM else room_id
    return room_id


def _of_room(event: event_pb2.Event) -> Sequence[tuple[int, Mapping[str, object]]]:
    info: dict[str, object] = _when(event)
    if event.HasField("participant"):
        info["UserId"] = event.participant.user_id
    match event.type:
        case event_pb2.EVENT_TYPE_ROOM_CREATED:
            # Who created it is not known: the platform did.
            return [(101, info | {"UserId": ""})]
        case event_pb2.EVENT_TYPE_ROOM_CLOSED:
            return [(102, info)]
        case event_pb2.EVENT_TYPE_PARTICIPANT_JOINED:
            entry = {"Role": _ANCHOR, "TerminalType": _TERMINAL_OTHER, "UserType": _NATIVE_SDK}
            return [(103, info | entry | {"Reason": _NORMAL})]
        case event_pb2.EVENT_TYPE_PARTICIPANT_LEFT:
            reason = _EXIT_REASONS.get(event.participant.leave_reason, _NORMAL)
            return [(104, info | {"Role": _ANCHOR, "Reason": reason})]
        case event_pb2.EVENT_TYPE_TRACK_STARTED if event.participant.track.muted:
            return []
        case event_pb2.EVENT_TYPE_TRACK_STARTED | event_pb2.EVENT_TYPE_TRACK_UNMUTED:
            return [(205 if _is_aux(event) else 203, info)]
        case event_pb2.EVENT_TYPE_TRACK_MUTED:
            return [(206 if _is_aux(event) else 204, info | {"Reason": _STOPPED_BY_USER})]
        case _:
            # A track stops when its user leaves, and of that TRTC tells 104 alone.
            return []


def _is_aux(event: event_pb2.Event) -> bool:
    return event.participant.track.source == media_pb2.TRACK_SOURCE_AUX


def _payloads(event: event_pb2.Event, context: FormatContext) -> Sequence[tuple[int, Mapping[str, object]]]:
    """The numbers and payloads of a recording's event, in the order in which they are told."""
    task, segment = event.task.task, event.segment.segment
    match event.type:
        case event_pb2.EVENT_TYPE_TASK_STARTED:
            return [(301, {"Status": _OK})]
        case event_pb2.EVENT_TYPE_TASK_STATE_CHANGED if _began(event.task):
            return [(303, {"Status": _OK})]
        case event_pb2.EVENT_TYPE_TASK_STOPPED:
            return [(302, {"LeaveCode": _LEAVE_CODES.get(task.stop_reason, _LEFT_BY_SERVER)})]
        case event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            return _all_stored(context)
        case event_pb2.EVENT_TYPE_INTERRUPTED if event.interrupted.cause in _MOVED:
            return [(306, {"Status": _OK})]
        case _ if not event.HasField("segment") or segment.joined_segments:
            return []
        case event_pb2.EVENT_TYPE_SEGMENT_STARTED:
            # A string here, by the vendor's page, and numbers in 310 and 311.
            return [(307, _file(segment) | {"BeginTimeStamp": str(milliseconds(segment.start_time))})]
        case event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED:
            return [(308, {"Code": event.segment.error_code, "Message": event.segment.message})]
        case event_pb2.EVENT_TYPE_SEGMENT_UPLOADED:
            return [_stored(segment, _OK, "")]
        case event_pb2.EVENT_TYPE_SEGMENT_LOST:
            return [_stored(segment, _FILE_FAILED, event.segment.message)]
        case event_pb2.EVENT_TYPE_SEGMENT_ABANDONED:
            return [_stored(segment, _FILE_FAILED, "given up by the operator")]
        case _:
            return []


def _began(detail: event_pb2.TaskDetail) -> bool:
    states = (detail.previous_state, detail.task.state)
    return states == (task_pb2.TASK_STATE_WAITING, task_pb2.TASK_STATE_RECORDING)


def _all_stored(context: FormatContext) -> Sequence[tuple[int, Mapping[str, object]]]:
    segments = context.facts.segments if context.facts is not None else ()
    in_bucket = [segment for segment in segments if _is_in_bucket(segment)]
    elsewhere = [segment for segment in segments if not _is_in_bucket(segment)]
    told: list[tuple[int, Mapping[str, object]]] = []
    if in_bucket:
        # The documents of 2022 and the Chinese ones call it Status, the English of today LeaveCode.
        status = _FAILED if _has_failed(in_bucket) else _OK
        told.append((305, {"Status": status, "LeaveCode": status}))
    if elsewhere:
        told.append((312, {"Status": _FAILED if _has_failed(elsewhere) else _OK}))
    return told


def _has_failed(segments: Sequence[segment_pb2.Segment]) -> bool:
    gone = (segment_pb2.SEGMENT_STATE_LOST, segment_pb2.SEGMENT_STATE_ABANDONED)
    return any(segment.state in gone for segment in segments)


def _stored(segment: segment_pb2.Segment, status: int, message: str) -> tuple[int, Mapping[str, object]]:
    times = {
        "StartTimeStamp": milliseconds(segment.start_time),
        "EndTimeStamp": milliseconds(segment.end_time),
    }
    media = {"MediaId": "mix" if segment.kind == segment_pb2.RECORDING_KIND_MIXED else "main"}
    if _is_in_bucket(segment):
        file = _file(segment) | media | times
        return 310, {"Status": status, "FileList": [segment.object_key], "FileMessage": [file]}
    of_library = {
        "UserId": segment.user_id,
        "TrackType": "audio",
        **media,
        "FileId": segment.file_id,
        "VideoUrl": segment.url,
        "CacheFile": posixpath.basename(segment.object_key),
        **times,
    }
    failure = {"Errmsg": message} if message else {}
    return 311, {"Status": status, **failure, "TencentVod": of_library}


def _is_in_bucket(segment: segment_pb2.Segment) -> bool:
    return segment.store.partition(":")[0] in _BUCKETS


def _file(segment: segment_pb2.Segment) -> dict[str, object]:
    return {"FileName": segment.object_key, "UserId": segment.user_id, "TrackType": "audio"}


def _of_task(event: event_pb2.Event, payload: Mapping[str, object]) -> Mapping[str, object]:
    return {**_when(event), "UserId": _ROBOT, "TaskId": event.task_id, "Payload": payload}


def _when(event: event_pb2.Event) -> dict[str, object]:
    time: Timestamp = event.event_time
    return {"EventTs": time.seconds, "EventMsTs": milliseconds(time)}
