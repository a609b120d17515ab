"""Refusals as google.rpc.Status: the only place where an error takes the form that callers see.

Everything that goes into a status goes into HTTP/2 trailers, and clients drop trailers over 8 KiB. So texts
are cut, and field violations that do not fit are left out, last first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from roomtape.v1 import error_pb2
from roomtape_service.errors import DOMAIN, FieldViolation, Refusal, reason_name

__all__ = [
    "DETAILS_KEY",
    "MAX_DETAILS_BYTES",
    "REQUEST_ID_KEY",
    "database_full",
    "internal",
    "to_status",
    "trailers",
]

REQUEST_ID_KEY = "x-request-id"
DETAILS_KEY = "grpc-status-details-bin"

# Base64 makes a third more of the details, percent encoding up to thrice as much of the message: together
# under the 8 KiB at which gRPC clients begin to refuse metadata.
MAX_DETAILS_BYTES = 4096
MAX_MESSAGE_BYTES = 512
MAX_METADATA_VALUE_BYTES = 256
MAX_DESCRIPTION_BYTES = 256
# Who sends more mistakes than this learns of the next ones after mending these.
MAX_FIELDS = 32

# Room comes from uploads, or by an operator's hand.
_ROOM_SECONDS = 30.0

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Texts:
    """A refusal with every text cut to what trailers hold."""

    message: str
    metadata: dict[str, str]
    fields: Sequence[FieldViolation]


def to_status(refusal: Refusal, request_id: str) -> status_pb2.Status:
    """The status of a refusal: exactly one ErrorInfo, BadRequest and RetryInfo where they apply, RequestInfo.

    The serialized status has at most `MAX_DETAILS_BYTES`.
    """
    texts = _Texts(
        _cut(refusal.message, MAX_MESSAGE_BYTES),
        {key: _cut(value, MAX_METADATA_VALUE_BYTES) for key, value in refusal.metadata.items()},
        [
            FieldViolation(
                _cut(violation.field, MAX_DESCRIPTION_BYTES),
                _cut(violation.description, MAX_DESCRIPTION_BYTES),
                violation.reason,
            )
            for violation in refusal.fields[:MAX_FIELDS]
        ],
    )
    for kept in range(len(texts.fields), -1, -1):
        status = _build(refusal, texts, kept, request_id)
        if status.ByteSize() <= MAX_DETAILS_BYTES:
            return status
    return _build(refusal, _Texts(texts.message, {}, ()), 0, request_id)


def internal(request_id: str) -> Refusal:
    """What a caller hears of a defect: nothing but where the log has it."""
    return Refusal(
        error_pb2.ERROR_REASON_INTERNAL,
        f"The server failed; its log has the cause under request id {request_id}.",
        metadata={"requestId": request_id},
    )


def database_full() -> Refusal:
    """What a caller hears of a database without room."""
    return Refusal(
        error_pb2.ERROR_REASON_DATABASE_FULL,
        "The disk of the server's database is full, and nothing was changed. The server's operator must make room; "
        "then the same request works.",
        retry_after_seconds=_ROOM_SECONDS,
    )


def trailers(status: status_pb2.Status, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a call that ends with `status`."""
    return ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))


def _build(refusal: Refusal, texts: _Texts, kept: int, request_id: str) -> status_pb2.Status:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=reason_name(refusal.reason), domain=DOMAIN, metadata=texts.metadata
        )
    ]
    if kept:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field,
                        description=violation.description,
                        reason=reason_name(violation.reason or refusal.reason),
                    )
                    for violation in texts.fields[:kept]
                ]
            )
        )
    if refusal.retry_after_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(refusal.retry_after_seconds)))
    details.append(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(code=_number(refusal.code), message=texts.message, details=map(_packed, details))


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _duration(seconds: float) -> duration_pb2.Duration:
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return duration_pb2.Duration(seconds=whole, nanos=nanos)


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit_bytes:
        return text
    return encoded[: limit_bytes - 3].decode("utf-8", "ignore") + "…"
