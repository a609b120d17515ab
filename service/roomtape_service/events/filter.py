"""Which events a watcher wants."""

from dataclasses import dataclass
from functools import cached_property

from roomtape.v1 import event_pb2

__all__ = ["EventFilter"]


@dataclass(frozen=True)
class EventFilter:
    """All conditions that are not empty must hold; none takes everything."""

    task_ids: frozenset[str] = frozenset()
    room_ids: frozenset[str] = frozenset()
    types: frozenset[int] = frozenset()

    @classmethod
    def of(cls, message: event_pb2.EventFilter) -> "EventFilter":
        """The filter of a request."""
        return cls(frozenset(message.task_ids), frozenset(message.room_ids), frozenset(message.types))

    @cached_property
    def takes_all(self) -> bool:
        """Whether nothing is filtered out."""
        return not (self.task_ids or self.room_ids or self.types)

    @property
    def only_task(self) -> str | None:
        """The task, if exactly one is named."""
        return next(iter(self.task_ids)) if len(self.task_ids) == 1 else None

    def matches(self, task_id: str, room_id: str, event_type: int) -> bool:
        """Whether an event is wanted."""
        return (
            (not self.task_ids or task_id in self.task_ids)
            and (not self.room_ids or room_id in self.room_ids)
            and (not self.types or event_type in self.types)
        )
