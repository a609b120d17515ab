"""What a field of a request may hold: pure checks, one for each kind of field.

A check takes a value and the dotted path of its field, and gives a `Problem` or None. `refuse` takes what the
checks of a request gave, and raises one Refusal that names every field at fault:

    refuse(app_id(request.app_id), room_id(request.room_id), request_id(request.request_id))
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import error_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.errors import FieldViolation, Reason, Refusal

__all__ = [
    "Problem",
    "app_id",
    "client_task_id",
    "delivery_id",
    "display_name",
    "duration",
    "enum",
    "file_id",
    "key_prefix",
    "labels",
    "page_size",
    "present",
    "publish_session_id",
    "recording_id",
    "refuse",
    "request_id",
    "room_id",
    "segment_id",
    "task_id",
    "timestamp",
    "track_id",
    "update_mask",
    "user_id",
    "webhook_id",
]

MAX_NAME_BYTES = 128
MAX_LABELS = 32
MAX_LABEL_VALUE_CHARACTERS = 256
MAX_DISPLAY_NAME_CHARACTERS = 256
MAX_KEY_PREFIX_BYTES = 1024
# 9999-12-31T23:59:59Z, the last second of a Timestamp; times before 1970 belong to no recording.
MAX_TIMESTAMP_SECONDS = 253_402_300_799

_SHOWN_CHARACTERS = 64

# Unicode's category Cc.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_APP_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SHORT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TASK_ID = re.compile(r"[0-9]{1,20}")
_FILE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,36}")
_CLIENT_TASK_ID = re.compile(r"[A-Za-z0-9_@.-]{1,128}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")


class _Enum(Protocol):
    """A generated enum, such as `task_pb2.RecordMode`."""

    def items(self) -> Iterable[tuple[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """One field at fault; `metadata` holds what the description names beside the field."""

    reason: Reason
    field: str
    description: str
    metadata: Mapping[str, str] = dataclass_field(default_factory=dict)


def refuse(*problems: Problem | None) -> None:
    """Raises a Refusal with the reason of the first problem and the fields of all; None are passed over."""
    found = [problem for problem in problems if problem is not None]
    if not found:
        return
    first = found[0]
    raise Refusal(
        first.reason,
        f"{first.field}: {first.description}",
        metadata={"field": first.field, **first.metadata},
        fields=[FieldViolation(problem.field, problem.description, problem.reason) for problem in found],
    )


def app_id(value: str, field: str = "app_id") -> Problem | None:
    """An application: 1 to 64 letters, digits, `-` and `.`."""
    return _id(value, field, _APP_ID, "an application id has 1 to 64 letters, digits, `-` and `.`")


def publish_session_id(value: str, field: str = "publish_session_id") -> Problem | None:
    """A session: 1 to 64 letters, digits, `-`, `_` and `.`."""
    return _id(value, field, _SHORT_ID, "a session id has 1 to 64 letters, digits, `-`, `_` and `.`")


def track_id(value: str, field: str = "track_id", *, required: bool = True) -> Problem | None:
    """A track: 1 to 64 letters, digits, `-`, `_` and `.`."""
    return _id(value, field, _SHORT_ID, "a track id has 1 to 64 letters, digits, `-`, `_` and `.`", required)


def task_id(value: str, field: str = "task_id", *, required: bool = True) -> Problem | None:
    """A task, as the server named it: decimal digits."""
    return _id(
        value, field, _TASK_ID, "a task id has up to 20 decimal digits, as StartRecord gave it", required
    )


def file_id(value: str, field: str = "file_id") -> Problem | None:
    """A file, as the server named it."""
    return _id(
        value, field, _FILE_ID, "a file id has up to 128 printable ASCII characters, as ListFiles gave it"
    )


def recording_id(value: str, field: str = "recording_id") -> Problem | None:
    """A recording, as the server named it."""
    return _id(
        value,
        field,
        _FILE_ID,
        "a recording id has up to 128 printable ASCII characters, as DescribeRecordInfo gave it",
    )


def webhook_id(value: str, field: str = "webhook_id") -> Problem | None:
    """A webhook, as the server named it."""
    return _id(
        value,
        field,
        _FILE_ID,
        "a webhook id has up to 128 printable ASCII characters, as CreateWebhook gave it",
    )


def delivery_id(value: str, field: str) -> Problem | None:
    """A delivery, as the server named it."""
    return _id(
        value,
        field,
        _FILE_ID,
        "a delivery id has up to 128 printable ASCII characters, as ListWebhookDeliveries gave it",
    )


def segment_id(value: int, field: str) -> Problem | None:
    """The number of a segment, from 0."""
    return None if value >= 0 else _invalid(field, value, "is negative; segments are counted from 0")


def request_id(value: str, field: str = "request_id") -> Problem | None:
    """A caller's request id, or nothing: up to 36 printable ASCII characters without spaces."""
    return _id(
        value,
        field,
        _REQUEST_ID,
        "a request id has up to 36 printable ASCII characters, such as a UUID",
        False,
    )


def client_task_id(value: str, field: str = "client_task_id") -> Problem | None:
    """A caller's task id, or nothing: up to 128 letters, digits and `_ @ - .`."""
    return _id(
        value, field, _CLIENT_TASK_ID, "a client task id has up to 128 letters, digits and `_ @ - .`", False
    )


def room_id(value: str, field: str = "room_id", *, required: bool = True) -> Problem | None:
    """A room: 1 to 128 bytes of UTF-8 without control characters; slashes, dots and emoji are fine."""
    return _name(value, field, "a room id", required)


def user_id(value: str, field: str = "user_id", *, required: bool = True) -> Problem | None:
    """A user: 1 to 128 bytes of UTF-8 without control characters; slashes, dots and emoji are fine."""
    return _name(value, field, "a user id", required)


def key_prefix(value: str, field: str = "key_prefix") -> Problem | None:
    """The start of an object key, or nothing."""
    size = len(value.encode())
    if size > MAX_KEY_PREFIX_BYTES:
        return _invalid(field, value, f"has {size} bytes; object keys have at most {MAX_KEY_PREFIX_BYTES}")
    return None


def display_name(value: str, field: str = "display_name") -> Problem | None:
    """A name for people: up to 256 characters, none of them a control character."""
    if len(value) > MAX_DISPLAY_NAME_CHARACTERS:
        return _invalid(
            field, value, f"has {len(value)} characters; at most {MAX_DISPLAY_NAME_CHARACTERS} fit"
        )
    if _CONTROL.search(value):
        return _invalid(field, value, "has control characters; leave them out")
    return None


def labels(values: Mapping[str, str], field: str = "labels") -> Problem | None:
    """Up to 32 labels; keys of up to 63 letters, digits and `- _ . /`, values of up to 256 characters."""
    if len(values) > MAX_LABELS:
        return Problem(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            field,
            f"has {len(values)} labels; at most {MAX_LABELS} fit",
            {"count": str(len(values)), "limit": str(MAX_LABELS)},
        )
    for key, value in values.items():
        if not _LABEL_KEY.fullmatch(key):
            return _invalid(field, key, "is no label key; write 1 to 63 letters, digits and `- _ . /`")
        if len(value) > MAX_LABEL_VALUE_CHARACTERS or _CONTROL.search(value):
            return _invalid(
                f"{field}.{key}",
                value,
                f"is no label value; write up to {MAX_LABEL_VALUE_CHARACTERS} characters, no control characters",
            )
    return None


def page_size(value: int, field: str = "page_size") -> Problem | None:
    """Nothing, or a positive number; what is over the most is taken as the most."""
    return None if value >= 0 else _invalid(field, value, "is negative; leave it out for the default")


def duration(
    value: Duration | None, field: str, *, least_seconds: float, most_seconds: float
) -> Problem | None:
    """A span in a range. Pass None when the field is unset."""
    if value is None:
        return None
    span_ns = value.seconds * NANOSECONDS + value.nanos
    wrong = abs(value.nanos) >= NANOSECONDS or value.seconds * value.nanos < 0
    if wrong or not least_seconds * NANOSECONDS <= span_ns <= most_seconds * NANOSECONDS:
        shown = f"{value.seconds}.{abs(value.nanos):09d}".rstrip("0").rstrip(".")
        return Problem(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            field,
            f"{shown} s is out of range; write {least_seconds:g} s to {most_seconds:g} s",
            {"value": f"{shown}s", "least": f"{least_seconds:g}s", "most": f"{most_seconds:g}s"},
        )
    return None


def timestamp(value: Timestamp | None, field: str) -> Problem | None:
    """A time from 1970 to 9999. Pass None when the field is unset."""
    if value is None:
        return None
    if not 0 <= value.seconds <= MAX_TIMESTAMP_SECONDS or not 0 <= value.nanos < NANOSECONDS:
        shown = f"seconds={value.seconds} nanos={value.nanos}"
        return _invalid(field, shown, "is no time from 1970 to 9999")
    return None


def enum(
    value: int,
    kind: _Enum,
    field: str,
    *,
    required: bool = False,
    allowed: Collection[int] | None = None,
    reason: Reason = error_pb2.ERROR_REASON_INVALID_VALUE,
) -> Problem | None:
    """A value that this server knows, and one of `allowed`. 0 means that the field is unset.

    `reason` is for a value that is unknown or, when required, missing.
    """
    known = {number: name for name, number in kind.items() if number}
    choices = [name for number, name in known.items() if allowed is None or number in allowed]
    if value == 0:
        if not required:
            return None
        return Problem(reason, field, f"is required; write one of {', '.join(choices)}")
    if known.get(value) in choices:
        return None
    shown = known.get(value, str(value))
    text = f"{shown} is not possible here; write one of {', '.join(choices)}"
    return Problem(reason, field, text, {"value": shown})


def update_mask(mask: FieldMask, changeable: Collection[str], field: str = "update_mask") -> Problem | None:
    """Paths that name fields which can be changed."""
    for path in mask.paths:
        if path not in changeable:
            shown = _shown(path)
            return Problem(
                error_pb2.ERROR_REASON_INVALID_UPDATE_MASK,
                field,
                f"{shown} names no field that can be changed; write paths out of {', '.join(changeable)}",
                {"path": shown},
            )
    return None


def present(is_set: bool, field: str, what: str) -> Problem | None:
    """A field that must be set; `what` says what goes there."""
    if is_set:
        return None
    return Problem(error_pb2.ERROR_REASON_FIELD_REQUIRED, field, f"is required: {what}")


def _id(value: str, field: str, pattern: re.Pattern[str], rule: str, required: bool = True) -> Problem | None:
    if not value:
        return (
            Problem(error_pb2.ERROR_REASON_FIELD_REQUIRED, field, f"is required; {rule}")
            if required
            else None
        )
    if pattern.fullmatch(value):
        return None
    shown = _shown(value)
    return Problem(
        error_pb2.ERROR_REASON_INVALID_ID, field, f"{shown} is not allowed; {rule}", {"value": shown}
    )


def _name(value: str, field: str, what: str, required: bool) -> Problem | None:
    rule = f"{what} has 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
    if not value:
        return (
            Problem(error_pb2.ERROR_REASON_FIELD_REQUIRED, field, f"is required; {rule}")
            if required
            else None
        )
    size = len(value.encode())
    if size <= MAX_NAME_BYTES and not _CONTROL.search(value):
        return None
    shown = _shown(value)
    description = f"{shown} ({size} bytes) is not allowed; {rule}"
    return Problem(
        error_pb2.ERROR_REASON_INVALID_ID, field, description, {"value": shown, "sizeBytes": str(size)}
    )


def _invalid(field: str, value: object, text: str) -> Problem:
    shown = _shown(str(value)) if isinstance(value, str) else str(value)
    return Problem(error_pb2.ERROR_REASON_INVALID_VALUE, field, f"{shown} {text}", {"value": shown})


def _shown(value: str) -> str:
    cut = value[:_SHOWN_CHARACTERS]
    return f"{cut!r}…" if len(cut) < len(value) else repr(value)
