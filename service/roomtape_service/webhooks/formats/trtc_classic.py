"""As the older TRTC recording calls back: `event_type` 100 of the live service (Tencent Cloud 267/47026).

There is no header; `sign` in the body is the MD5 of the key and of `t`, the Unix second until which it is valid.
"""

import base64
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from roomtape.v1 import event_pb2, media_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.rules.naming import EXTENSIONS
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
    check_number,
    check_vendor_key,
    compact,
    hex_digest,
    make_vendor_key,
    vendor_key,
)
from roomtape_service.webhooks.formats.trtc import LARGEST_SDK_APP_ID

__all__ = ["TrtcClassicFormat", "signature"]

_FILE_MADE = 100
_VALID_SECONDS = 600
"""How long a notification is valid, by the vendor's page."""
_MICROSECONDS = 1_000_000


class TrtcClassicFormat:
    """Each file once it is in the store, and nothing else."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        return type == event_pb2.EVENT_TYPE_SEGMENT_UPLOADED

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        return Need.TASK

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        segment = event.segment.segment
        if segment.joined_segments:
            return []
        expires = delivery.attempt_ns // NANOSECONDS + _VALID_SECONDS
        content = {
            "event_type": _FILE_MADE,
            **_stream(segment, context),
            **_file(segment),
            "sign": signature(vendor_key(keys).decode(), expires),
            "t": expires,
        }
        return [Request(JSON_HEADERS, compact(content).encode())]

    def check_key(self, value: str) -> None:
        check_vendor_key(value)

    def make_key(self, randomness: RandomBytes) -> str:
        return make_vendor_key(randomness)

    def check_app_id(self, vendor_app_id: str) -> None:
        check_number(vendor_app_id, "SdkAppId", LARGEST_SDK_APP_ID)


def signature(key: str, expires: int) -> str:
    """`sign`, which says nothing of the rest of the body."""
    return hex_digest(f"{key}{expires}", "md5")


def _stream(segment: segment_pb2.Segment, context: FormatContext) -> Mapping[str, object]:
    app_id = context.vendor_app_id
    # Where a user sets no streamId, TRTC's is of these four; the mix is a stream of the room.
    parts = [app_id, segment.room_id, "mix"]
    if segment.kind == segment_pb2.RECORDING_KIND_SINGLE:
        parts[2:] = [segment.user_id, "main"]
    stream = "_".join(quote(part, safe="") for part in parts)
    own_id = context.facts.task.client_task_id if context.facts is not None else ""
    params = {
        "userid": base64.b64encode(segment.user_id.encode()).decode(),
        "userdefinerecordid": own_id or segment.task_id,
    }
    return {
        "appid": int(app_id),
        "app": "",
        "appname": f"trtc_{app_id}",
        "stream_id": stream,
        "channel_id": stream,
        "stream_param": urlencode(params),
    }


def _file(segment: segment_pb2.Segment) -> Mapping[str, object]:
    start_us = segment.start_time.ToMicroseconds()
    end_us = segment.end_time.ToMicroseconds()
    length_us = segment.duration.ToMicroseconds()
    return {
        "file_id": segment.file_id,
        "record_file_id": segment.file_id,
        "file_format": EXTENSIONS.get(media_pb2.Container.ValueType(segment.container), ""),
        "task_id": segment.task_id,
        "start_time": start_us // _MICROSECONDS,
        "start_time_usec": start_us % _MICROSECONDS,
        "end_time": end_us // _MICROSECONDS,
        "end_time_usec": end_us % _MICROSECONDS,
        # Whole seconds, rounded up as the vendor's own example is.
        "duration": -(-length_us // _MICROSECONDS),
        "file_size": segment.size_bytes,
        "media_start_time": 0,
        "record_bps": segment.size_bytes * 8 * _MICROSECONDS // length_us if length_us else 0,
        "video_url": segment.url,
        "callback_ext": "",
    }
