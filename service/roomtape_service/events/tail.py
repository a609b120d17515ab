"""The newest events of one application, in memory, and the cursors that wait for more."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.database.events import LoggedRow
from roomtape_service.events import token
from roomtape_service.events.filter import EventFilter

__all__ = ["LoggedEvent", "Tail", "Waiting"]

_NO_LABELS: Mapping[str, str] = {}
_ENDING = frozenset({event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE})


def _tag(field: str) -> bytes:
    """How a length-delimited field of a WatchEventsResponse begins."""
    number = event_pb2.WatchEventsResponse.DESCRIPTOR.fields_by_name[field].number
    return bytes([number << 3 | 2])


_TOKEN_TAG = _tag("resume_token")
_EVENT_TAG = _tag("event")


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as every watcher gets it: `response` is the serialized WatchEventsResponse."""

    sequence: int
    task_id: str
    room_id: str
    type: int
    labels: Mapping[str, str]
    ends_task: bool
    response: bytes

    @property
    def event(self) -> event_pb2.Event:
        """A copy of the event."""
        return event_pb2.WatchEventsResponse.FromString(self.response).event

    @classmethod
    def of(cls, event: event_pb2.Event, epoch: str) -> "LoggedEvent":
        """Serializes an event, once for all watchers."""
        return cls(
            event.sequence,
            event.task_id,
            event.room_id,
            event.type,
            dict(event.labels) or _NO_LABELS,
            _ends_task(event),
            _response(token.encode(epoch, event.app_id, event.sequence), event.SerializeToString()),
        )

    @classmethod
    def stored(cls, row: LoggedRow, app_id: str, epoch: str) -> "LoggedEvent":
        """As `of`, without its labels: who reads by labels lets the database look for them."""
        may_end = row.type in _ENDING and row.task_id
        return cls(
            row.sequence,
            row.task_id,
            row.room_id,
            row.type,
            _NO_LABELS,
            bool(may_end) and _ends_task(event_pb2.Event.FromString(row.payload)),
            _response(token.encode(epoch, app_id, row.sequence), row.payload),
        )


def _ends_task(event: event_pb2.Event) -> bool:
    if event.type == event_pb2.EVENT_TYPE_TASK_STATE_CHANGED:
        return event.task.task.state == task_pb2.TASK_STATE_FAILED
    return event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE


def _response(resume_token: str, event: bytes) -> bytes:
    """The bytes of a WatchEventsResponse: to parse events only to write them again takes half of a replay's time."""
    text = resume_token.encode()
    return b"".join((_TOKEN_TAG, _varint(len(text)), text, _EVENT_TAG, _varint(len(event)), event))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


class Waiting(Protocol):
    """A cursor, as the tail sees it."""

    filter: EventFilter

    def wake(self, at: int) -> None:
        """Something happened after the place `at`; nothing that matches lies between the cursor and `at`."""
        ...


class Tail:
    """Events without a hole up to `head`, the newest event that is known to be durable.

    Cursors that wait are woken by events that they want only: those that wait for named tasks are found by the
    task, those with other filters are asked one by one, and those without are not asked.
    """

    def __init__(self, app_id: str, epoch: str, capacity: int) -> None:
        self.app_id = app_id
        self.head = 0
        self.compacted = 0
        self.labelled_after = 0
        """Events after this one surely carry their labels; the database may hold others, of an earlier version."""
        self.loading = asyncio.Lock()
        self.paging = asyncio.Lock()
        self._epoch = epoch
        self._capacity = capacity
        self._events: list[LoggedEvent] = []
        self._early: list[event_pb2.Event] | None = []
        self._by_task: dict[str, set[Waiting]] = {}
        self._filtering: set[Waiting] = set()
        self._taking_all: set[Waiting] = set()

    @property
    def loaded(self) -> bool:
        """Whether `fill` was called."""
        return self._early is None

    @property
    def unused(self) -> bool:
        """Whether no cursor is left."""
        return not (self._taking_all or self._filtering or self._by_task)

    def attach(self, cursor: Waiting) -> None:
        """From now on the cursor is woken."""
        for task_id in cursor.filter.task_ids:
            self._by_task.setdefault(task_id, set()).add(cursor)
        if cursor.filter.takes_all:
            self._taking_all.add(cursor)
        elif not cursor.filter.task_ids:
            self._filtering.add(cursor)

    def detach(self, cursor: Waiting) -> None:
        """It is woken no more."""
        for task_id in cursor.filter.task_ids:
            waiting = self._by_task[task_id]
            waiting.discard(cursor)
            if not waiting:
                del self._by_task[task_id]
        self._taking_all.discard(cursor)
        self._filtering.discard(cursor)

    def fill(self, rows: Sequence[LoggedRow], head: int, compacted: int) -> None:
        """Takes what the database holds; what was committed while that was read follows it."""
        self._events = [LoggedEvent.stored(row, self.app_id, self._epoch) for row in rows]
        self.head, self.compacted = head, compacted
        self.labelled_after = head
        early, self._early = self._early, None
        self.extend(early or ())

    def extend(self, events: Iterable[event_pb2.Event]) -> None:
        """Takes events that were committed, and wakes who wants them."""
        for event in events:
            if self._early is not None:
                self._early.append(event)
            elif event.sequence > self.head:
                self._append(LoggedEvent.of(event, self._epoch))

    def skip_to(self, head: int) -> None:
        """Takes note of commits that were not told, because their answer was lost or they were another node's.

        Everybody reads them from the database.
        """
        if self._early is None and head > self.head:
            self._events.clear()
            self.head = head
            for cursor in self._taking_all.union(self._filtering, *self._by_task.values()):
                cursor.wake(0)

    def drop_through(self, sequence: int) -> None:
        """Forgets events that were compacted."""
        self.compacted = max(self.compacted, sequence)
        if self._events:
            del self._events[: max(0, sequence + 1 - self._events[0].sequence)]

    def after(self, sequence: int, limit: int) -> Sequence[LoggedEvent] | None:
        """Up to `limit` events after `sequence`, or None if some of them are not in memory any more."""
        if sequence >= self.head:
            return ()
        if not self._events or sequence + 1 < self._events[0].sequence:
            return None
        start = sequence + 1 - self._events[0].sequence
        return self._events[start : start + limit]

    def _append(self, logged: LoggedEvent) -> None:
        if logged.sequence != self.head + 1:
            self.skip_to(logged.sequence - 1)
        before, self.head = self.head, logged.sequence
        self._events.append(logged)
        if len(self._events) >= 2 * self._capacity:
            del self._events[: -self._capacity]
        for cursor in (*self._by_task.get(logged.task_id, ()), *self._filtering):
            if cursor.filter.matches(logged.task_id, logged.room_id, logged.type, logged.labels):
                cursor.wake(before)
        for cursor in self._taking_all:
            cursor.wake(before)
