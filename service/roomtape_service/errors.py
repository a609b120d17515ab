"""What the service refuses, and how a refusal reads on the wire.

Domain code raises `Refusal`; the gRPC edge alone turns it into a status. `CODES` is the one table that gives
each `ErrorReason` its gRPC code.

    Exception
    └── Refusal      a request that is answered with a reason; nothing was changed
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from roomtape.v1 import error_pb2

__all__ = ["CODES", "DOMAIN", "FieldViolation", "Reason", "Refusal", "field_refusal", "reason_name"]

DOMAIN = "roomtape"

Reason: TypeAlias = "error_pb2.ErrorReason.ValueType"

_PREFIX = "ERROR_REASON_"

CODES: Mapping[Reason, grpc.StatusCode] = {
    error_pb2.ERROR_REASON_INTERNAL: grpc.StatusCode.INTERNAL,
    error_pb2.ERROR_REASON_DRAINING: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_API_KEY_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    error_pb2.ERROR_REASON_APPLICATION_FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_FIELD_REQUIRED: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_ID: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_VALUE: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_UPDATE_MASK: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_ETAG_MISMATCH: grpc.StatusCode.ABORTED,
    error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_APPLICATION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_SERVICE_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_ROOM_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_ROOM_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_PARTICIPANT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_TRACK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_TASK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_TASK_IN_USE: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_TASK_ENDED: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_INVALID_RECORD_MODE: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_SUBSCRIPTION_CONFLICT: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_TOO_MANY_ALLOWED_USERS: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_TOO_MANY_BLOCKED_USERS: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_CONTAINER: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_NO_CAPACITY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_SPOOL_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_DATABASE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_PUBLISH_NOT_OPENED: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_ALREADY_PUBLISHING: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_PUBLISH_REPLACED: grpc.StatusCode.ABORTED,
    error_pb2.ERROR_REASON_UNKNOWN_TRACK: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_CODEC: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_EMPTY_PAYLOAD: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_CORRUPT_PAYLOAD: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_FRAME_TIME_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_FRAME_SEQUENCE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_BATCH_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_PARTICIPANT_REMOVED: grpc.StatusCode.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_ROOM_CLOSED: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED: grpc.StatusCode.OUT_OF_RANGE,
    error_pb2.ERROR_REASON_EVENT_HISTORY_LOST: grpc.StatusCode.OUT_OF_RANGE,
    error_pb2.ERROR_REASON_TOO_MANY_WATCHERS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_STREAM_STALLED: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_FILE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_FILE_NOT_STORED: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_INVALID_STORAGE_SETTINGS: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_FILE_NOT_ABANDONABLE: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_SEGMENTS_NOT_JOINABLE: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_MANIFEST_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_RECORDING_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_WEBHOOK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_INVALID_WEBHOOK_URL: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_INVALID_WEBHOOK_KEY: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_TOO_MANY_WEBHOOKS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_TOO_MANY_WEBHOOK_KEYS: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_DELIVERY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is at fault: `field` as a dotted path in proto names.

    `reason` is the field's own where a refusal has fields of several reasons; None means the refusal's.
    """

    field: str
    description: str
    reason: "Reason | None" = None


class Refusal(Exception):
    """A request that is refused for a reason of the contract; nothing was changed by it.

    `metadata` holds every value that the message names, with lowerCamelCase keys (AIP-193).
    `retry_after_seconds` becomes google.rpc.RetryInfo.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Sequence[FieldViolation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.fields = tuple(fields)
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC code of the reason."""
        return CODES[self.reason]


def reason_name(reason: Reason) -> str:
    """The name that goes into google.rpc.ErrorInfo, such as `TASK_IN_USE`."""
    return error_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX)


def field_refusal(reason: Reason, field: str, description: str, **metadata: str) -> Refusal:
    """A refusal that is one field's fault; `field` is a dotted path in proto names."""
    return Refusal(
        reason,
        f"{field}: {description}",
        metadata={"field": field, **metadata},
        fields=[FieldViolation(field, description)],
    )
