"""What every format of a webhook is: from an event to signed HTTP requests, without I/O and without a clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from roomtape.v1 import event_pb2, segment_pb2, task_pb2

__all__ = ["Delivery", "Format", "FormatContext", "Need", "RandomBytes", "Request", "SigningKey", "TaskFacts"]

RandomBytes = Callable[[int], bytes]
"""So many unpredictable bytes; `secrets.token_bytes` where the service runs."""


class Need(Enum):
    """What a format must know beside the event, in FormatContext.facts."""

    NOTHING = "nothing"
    TASK = "task"
    """The event's task."""
    SEGMENTS = "segments"
    """The event's task and all its segments."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """An event's task as it stands when the event is sent; `segments` by recording, number and container."""

    task: task_pb2.Task
    segments: Sequence[segment_pb2.Segment] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatContext:
    """What a webhook's owner set for its format, and what the format asked for by `needs`.

    `vendor_app_id` is the application's number with the vendor (BizId, SdkAppId, AppId), by default the application's
    own id. `has_string_room_ids` is whether a vendor's room id is a string although it may be a number. `facts` is None
    where nothing was needed, or where the event is of no task.
    """

    vendor_app_id: str
    has_string_room_ids: bool = False
    facts: TaskFacts | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as its owner knows it, such as `whsec_…`."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt: the id is the same in every attempt, `attempt_ns` is the time of this one."""

    delivery_id: str
    attempt_ns: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is POSTed. `headers` are spelled as the receiver's documents spell them, Content-Type among them."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Format(Protocol):
    """One way of speaking. All methods are pure: the same arguments, the same answer."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        """Whether it may have something to say of such an event. Others are never queued for it."""
        ...

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        """What `requests` must find in `FormatContext.facts` for such an event."""
        ...

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        """What tells of the event: requests to be sent in this order, each after the one before was taken.

        None where the format has nothing to say of it; then the event counts as delivered. There are as many in every
        attempt, so a retry may begin at the first that was not taken. `keys` are those that have not ended, newest
        first, at least one.
        """
        ...

    def check_key(self, value: str) -> None:
        """Raises ValueError that says what is wrong with a key that an owner chose; it does not repeat the key."""
        ...

    def make_key(self, randomness: RandomBytes) -> str:
        """A new key that `check_key` takes."""
        ...

    def check_app_id(self, vendor_app_id: str) -> None:
        """Raises ValueError if the format can't say this id, such as letters where the vendor has a number."""
        ...
