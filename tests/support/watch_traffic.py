"""What went over the wire between a service, its watchers and its callers, as the callers' side recorded it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from roomtape.v1 import event_pb2
from roomtape_service.events import token

__all__ = ["Call", "Stream", "Traffic", "matches", "place_of"]

SNAPSHOT_END = event_pb2.BOOKMARK_REASON_SNAPSHOT_END


@dataclass(slots=True)
class Stream:
    """One life of a watch stream."""

    wanted: event_pb2.EventFilter
    origin: event_pb2.WatchOrigin.ValueType
    """Where it starts if it has no token, or one that leads to a snapshot."""
    after: int | None
    """The sequence of its token."""
    opened_ns: int
    """Before the call, by the monotonic clock."""
    messages: list[event_pb2.WatchEventsResponse] = field(default_factory=list)
    end: str = ""
    """The reason of its error, the code of an error without one, OK, CANCELLED by the watcher, SILENT if nothing was
    heard for too long, or empty while it is open."""

    @property
    def events(self) -> Iterator[event_pb2.Event]:
        """Its events in the order in which they came."""
        return (message.event for message in self.messages if message.HasField("event"))

    @property
    def is_snapshot(self) -> bool:
        """Whether it begins with the state."""
        return self.after is None and self.origin == event_pb2.WATCH_ORIGIN_SNAPSHOT

    @property
    def beginning(self) -> int | None:
        """The index of the bookmark from which on it follows the log."""
        reason = SNAPSHOT_END if self.is_snapshot else event_pb2.BOOKMARK_REASON_STARTED
        return next((i for i, message in enumerate(self.messages) if message.bookmark.reason == reason), None)

    @property
    def started(self) -> int | None:
        """The sequence of that bookmark."""
        return None if self.beginning is None else self.messages[self.beginning].bookmark.sequence

    @property
    def place(self) -> int:
        """The sequence up to which it has everything; -1 before it follows the log."""
        return -1 if self.beginning is None else place_of(self.messages[-1])

    @property
    def items(self) -> Iterator[event_pb2.SnapshotItem]:
        """Of its snapshot."""
        return (message.snapshot for message in self.messages if message.HasField("snapshot"))


@dataclass(slots=True)
class Call:
    """A call that makes an event, tried until it was answered."""

    type: event_pb2.EventType.ValueType
    """Of the event that it makes."""
    room_id: str
    """Each room has at most one such call."""
    sent_ns: int
    answered_ns: int = 0
    attempts: int = 0
    task_sequence: int = 0
    """Of the task in its reply."""
    token_sequence: int | None = None
    """Of the token in its reply, if it has one."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """All that was recorded of one log."""

    app_id: str
    epoch: str
    log: Sequence[event_pb2.Event]
    """What the database holds after all."""
    watchers: Sequence[Sequence[Stream]]
    """Each watcher's streams, one after the other."""
    calls: Sequence[Call]
    task_states: Mapping[str, int]
    """The state of each task in the database."""
    is_complete: bool = True
    """Whether watchers were given the time to hear of everything."""

    @property
    def streams(self) -> Iterator[Stream]:
        """Of all watchers."""
        return (stream for streams in self.watchers for stream in streams)

    def decode(self, text: str) -> token.ResumeToken:
        """A token that the service gave."""
        return token.decode(text, self.app_id)


def place_of(message: event_pb2.WatchEventsResponse) -> int:
    """The sequence of an event or a bookmark."""
    return message.event.sequence if message.HasField("event") else message.bookmark.sequence


def matches(wanted: event_pb2.EventFilter, event: event_pb2.Event) -> bool:
    """Whether a filter takes an event, by the contract's words."""
    return (
        (not wanted.task_ids or event.task_id in wanted.task_ids)
        and (not wanted.room_ids or event.room_id in wanted.room_ids)
        and (not wanted.types or event.type in wanted.types)
        and all(key in event.labels and event.labels[key] == value for key, value in wanted.labels.items())
    )
