"""As Tencent GME calls back about its recordings (tencentcloud.com 607/53749).

The header `Signature` is the base 64 of HMAC-SHA1 over the body. GME does not say how it writes the digest there; its
other callback, of the voice review, is in base 64.
"""

from collections.abc import Mapping, Sequence

from roomtape.v1 import event_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
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
    signed_by_header,
)

__all__ = ["GmeFormat"]

_EVENT_TYPES: Mapping[event_pb2.EventType.ValueType, int] = {
    event_pb2.EVENT_TYPE_SEGMENT_STARTED: 1,
    event_pb2.EVENT_TYPE_SEGMENT_COMPLETED: 2,
    event_pb2.EVENT_TYPE_SEGMENT_UPLOADED: 3,
}
_SINGLE, _MIXED = 0, 1
_USER_OF_MIX = "0"
"""What DescribeRecordInfo says of the mix; of the callback GME says nothing."""
_LARGEST_BIZ_ID = 2**64 - 1


class GmeFormat:
    """The begin, the end and the upload of each file."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        return type in _EVENT_TYPES

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        return Need.NOTHING

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        segment = event.segment.segment
        if segment.joined_segments:
            return []
        is_mix = segment.kind == segment_pb2.RECORDING_KIND_MIXED
        content = {
            "BizID": int(context.vendor_app_id),
            "RoomID": segment.room_id,
            "UserID": _USER_OF_MIX if is_mix else segment.user_id,
            "TaskID": int(segment.task_id),
            "RecordMode": _MIXED if is_mix else _SINGLE,
            "Timestamp": delivery.attempt_ns // NANOSECONDS,
            "EventType": _EVENT_TYPES[event.type],
            "Detail": {"SeqNo": segment.segment_id, "FileName": segment.object_key},
        }
        return [signed_by_header("Signature", content, keys, "sha1")]

    def check_key(self, value: str) -> None:
        check_vendor_key(value)

    def make_key(self, randomness: RandomBytes) -> str:
        return make_vendor_key(randomness)

    def check_app_id(self, vendor_app_id: str) -> None:
        check_number(vendor_app_id, "BizId", _LARGEST_BIZ_ID)
