"""What calls raise.

    Exception
    └── RoomtapeError            any call that did not end well
        ├── Cancelled            CANCELLED, not by the caller
        │   └── ClientClosed     the client was closed while the call ran
        ├── UnknownFailure       UNKNOWN, and codes that are none
        ├── InvalidArgument      INVALID_ARGUMENT
        ├── DeadlineExceeded     DEADLINE_EXCEEDED
        ├── NotFound             NOT_FOUND
        ├── AlreadyExists        ALREADY_EXISTS
        ├── PermissionDenied     PERMISSION_DENIED
        ├── ResourceExhausted    RESOURCE_EXHAUSTED
        ├── FailedPrecondition   FAILED_PRECONDITION
        ├── Aborted              ABORTED
        ├── OutOfRange           OUT_OF_RANGE
        │   └── HistoryGone      events that a watcher has not seen are gone
        │       ├── HistoryCompacted   removed by age or count
        │       └── HistoryLost        with the whole log
        ├── Unimplemented        UNIMPLEMENTED
        ├── Internal             INTERNAL
        ├── Unavailable          UNAVAILABLE
        ├── DataLoss             DATA_LOSS
        └── Unauthenticated      UNAUTHENTICATED

`from_rpc_error` alone makes them out of gRPC's own errors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from roomtape.v1 import error_pb2

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "ClientClosed",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "HistoryCompacted",
    "HistoryGone",
    "HistoryLost",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "RoomtapeError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownFailure",
    "from_rpc_error",
]

_DOMAIN = "roomtape"
_REASON_PREFIX = "ERROR_REASON_"
_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is at fault: `field` as a dotted path in proto names."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetails:
    """What a status says beside its code and its message."""

    reason_name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    field_violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    request_id: str = ""


class RoomtapeError(Exception):
    """A call that did not end well.

    The gRPC error is its `__cause__`. `str()` of it is for people: message, code, reason and request id.
    """

    def __init__(self, code: grpc.StatusCode, message: str, details: ErrorDetails | None = None) -> None:
        super().__init__(code, message, details)
        self._details = details or ErrorDetails()
        self.code = code
        self.message = message

    @property
    def reason(self) -> error_pb2.ErrorReason.ValueType:
        """The reason out of the contract; UNSPECIFIED when there is none, or one newer than this library."""
        value = error_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(_REASON_PREFIX + self.reason_name)
        return (
            error_pb2.ERROR_REASON_UNSPECIFIED if value is None else error_pb2.ErrorReason.Value(value.name)
        )

    @property
    def reason_name(self) -> str:
        """The reason as the server wrote it, such as `TASK_IN_USE`; empty when there is none."""
        return self._details.reason_name

    @property
    def metadata(self) -> Mapping[str, str]:
        """The values that the message names, with lowerCamelCase keys."""
        return self._details.metadata

    @property
    def field_violations(self) -> tuple[FieldViolation, ...]:
        """The fields of the request that are at fault."""
        return self._details.field_violations

    @property
    def retry_after(self) -> float | None:
        """Seconds after which calling again makes sense; None when the server did not say."""
        return self._details.retry_after

    @property
    def request_id(self) -> str:
        """The id under which the server's log has the call; empty when no server answered."""
        return self._details.request_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        facts = ", ".join(filter(None, (self.code.name, self.reason_name, self.request_id)))
        return f"{self.message or 'no message'} [{facts}]"


class Cancelled(RoomtapeError):
    """Something between caller and server cancelled the call.

    A call that its own caller cancelled raises asyncio.CancelledError instead.
    """


class ClientClosed(Cancelled):
    """The client was closed while the call ran; nothing is tried again."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.CANCELLED, "the client was closed")

    def __reduce__(self) -> tuple[type["ClientClosed"], tuple[()]]:
        return type(self), ()


class UnknownFailure(RoomtapeError):
    """The server, or something on the way to it, failed and did not say why."""


class InvalidArgument(RoomtapeError):
    """The request is wrong whatever the state of the server; `field_violations` says where."""


class DeadlineExceeded(RoomtapeError):
    """No answer in time. It is unknown whether the server acted; the same `request_id` again is safe."""


class NotFound(RoomtapeError):
    """What the request names does not exist."""


class AlreadyExists(RoomtapeError):
    """What the request would make exists."""


class PermissionDenied(RoomtapeError):
    """The API key does not reach this far, or the participant was removed."""


class ResourceExhausted(RoomtapeError):
    """A limit is reached; `retry_after` says when to try again, if waiting helps."""


class FailedPrecondition(RoomtapeError):
    """The state of what the request names does not allow it."""


class Aborted(RoomtapeError):
    """Somebody else was faster: read again, then change."""


class OutOfRange(RoomtapeError):
    """A position that is not there."""


class HistoryGone(OutOfRange):
    """Events after the resume token are gone: something was missed, and this says so.

    Read the state again (a watch from WATCH_ORIGIN_SNAPSHOT begins with it, ListTasks gives a token with the tasks), or
    go on from `oldest_resume_token`.
    """

    @property
    def oldest_resume_token(self) -> str:
        """A fresh token, before the oldest event that is kept."""
        return self.metadata.get("oldestResumeToken", "")

    @property
    def oldest_sequence(self) -> int | None:
        """The oldest event that is kept; None when the server did not say."""
        sequence = self.metadata.get("oldestSequence", "")
        return int(sequence) if sequence.isdecimal() else None


class HistoryCompacted(HistoryGone):
    """They were removed by age, count or size."""


class HistoryLost(HistoryGone):
    """The token is of a log that is gone, or ahead of the log.

    What was read before can't be relied on either, and sequences begin anew.
    """


class Unimplemented(RoomtapeError):
    """The server is older than this library, or no roomtape."""


class Internal(RoomtapeError):
    """A defect of the server; its log has the cause under `request_id`."""


class Unavailable(RoomtapeError):
    """The server can't be reached, or is stopping."""


class DataLoss(RoomtapeError):
    """Unrecoverable loss of data."""


class Unauthenticated(RoomtapeError):
    """No API key, or one that the server does not know."""


_BY_CODE: Mapping[grpc.StatusCode, type[RoomtapeError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: UnknownFailure,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}

_BY_REASON: Mapping[str, type[RoomtapeError]] = {
    "EVENT_HISTORY_COMPACTED": HistoryCompacted,
    "EVENT_HISTORY_LOST": HistoryLost,
}


def from_rpc_error(error: grpc.RpcError) -> RoomtapeError:
    """The typed error of a gRPC error, asyncio's or that of threads; raise it `from` the gRPC error."""
    # Both kinds of metadata iterate as pairs, whatever the stub package says of the one of threads.
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    details = _read_details(tuple(trailers))
    kind = _BY_REASON.get(details.reason_name) or _BY_CODE.get(error.code(), UnknownFailure)
    return kind(error.code(), error.details() or "", details)


def _read_details(trailers: Sequence[tuple[str, str | bytes]]) -> ErrorDetails:
    reason, request_id = "", ""
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for detail in _status(trailers).details:
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        origin = error_details_pb2.RequestInfo()
        if detail.Unpack(info):
            if info.domain == _DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(request):
            violations += [FieldViolation(each.field, each.description) for each in request.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Unpack(origin):
            request_id = origin.request_id
    return ErrorDetails(
        reason_name=reason,
        metadata=metadata,
        field_violations=tuple(violations),
        retry_after=retry_after,
        request_id=_trailer(trailers, _REQUEST_ID_KEY).decode("utf-8", "replace") or request_id,
    )


def _status(trailers: Sequence[tuple[str, str | bytes]]) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(_trailer(trailers, _DETAILS_KEY))
    except DecodeError:
        # Whatever stands between us and the server may write trailers of its own; the code still holds.
        return status_pb2.Status()


def _trailer(trailers: Sequence[tuple[str, str | bytes]], key: str) -> bytes:
    for name, value in trailers:
        if name == key:
            return value if isinstance(value, bytes) else value.encode()
    return b""
