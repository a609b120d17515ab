"""Which events a watcher wants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from roomtape.v1 import event_pb2

__all__ = ["EventFilter"]


@dataclass(frozen=True)
class EventFilter:
    """All conditions that are not empty must hold; none takes everything."""

    task_ids: frozenset[str] = frozenset()
    room_ids: frozenset[str] = frozenset()
    types: frozenset[int] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, message: event_pb2.EventFilter) -> "EventFilter":
        """The filter of a request."""
        return cls(
            frozenset(message.task_ids),
            frozenset(message.room_ids),
            frozenset(message.types),
            dict(message.labels),
        )

    @cached_property
    def takes_all(self) -> bool:
        """Whether nothing is filtered out."""
        return not (self.task_ids or self.room_ids or self.types or self.labels)

    @property
    def only_task(self) -> str | None:
        """The task, if exactly one is named."""
        return next(iter(self.task_ids)) if len(self.task_ids) == 1 else None

    def takes(self, event: event_pb2.Event) -> bool:
        """Whether an event is wanted that has been appended."""
        return self.matches(event.task_id, event.room_id, event.type, event.labels)

    def matches(self, task_id: str, room_id: str, event_type: int, labels: Mapping[str, str]) -> bool:
        """As `takes`, for an event of this task, room and type, whose task has these labels."""
        return (
            (not self.task_ids or task_id in self.task_ids)
            and (not self.room_ids or room_id in self.room_ids)
            and (not self.types or event_type in self.types)
            and (not self.labels or self._has(labels))
        )

    def _has(self, labels: Mapping[str, str]) -> bool:
        return all(key in labels and labels[key] == value for key, value in self.labels.items())
