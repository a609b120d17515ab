"""Events as lines for people; many alike at once become one."""

from collections.abc import Sequence
from dataclasses import dataclass

from roomtape.v1 import event_pb2
from roomtape_service.cli.event_text import event_name, event_text, is_bad_news
from roomtape_service.cli.texts import show_clock

__all__ = ["EventLines", "Line", "event_line"]

_NAME_COLUMNS = 22
# So many at once can be read; of more, those that are alike are put together.
_READABLE = 6
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Line:
    """What to print, and whether somebody should look at it."""

    text: str
    is_bad_news: bool


def event_line(event: event_pb2.Event) -> Line:
    """One event as one line."""
    return _line([event])


class EventLines:
    """Gathers the events of a moment."""

    def __init__(self) -> None:
        self._events: list[event_pb2.Event] = []

    def add(self, event: event_pb2.Event) -> None:
        """Something happened."""
        self._events.append(event)

    def take(self) -> Sequence[Line]:
        """The lines of what was added since the last time, in order.

        Of many, one for all events of a type in a room, where its first one was; bad news of a task stay by themselves.
        """
        events, self._events = self._events, []
        if len(events) <= _READABLE:
            return [_line([event]) for event in events]
        groups: dict[tuple[int, str, str], list[event_pb2.Event]] = {}
        for event in events:
            of_task = event.task_id if is_bad_news(event) else ""
            groups.setdefault((event.type, event.room_id, of_task), []).append(event)
        return [_line(group) for group in groups.values()]


def _line(alike: Sequence[event_pb2.Event]) -> Line:
    first, count = alike[0], len(alike)
    name = event_name(first) if count == 1 else f"{event_name(first)} × {count}"
    parts = [show_clock(first.event_time), f"{first.sequence:>5}", f"{name:<{_NAME_COLUMNS}}"]
    task_ids = {event.task_id for event in alike}
    texts = [event_text(event) for event in alike]
    if count == 1 or len(set(texts)) == 1:
        what = texts[0]
    else:
        # Of each only what it begins with: who it is about.
        named = [text.partition("  ")[0] for text in texts[:_NAMED]]
        rest = count - len(named)
        what = ", ".join(named) + (f" and {rest} more" if rest else "")
    parts += [part for part in (first.room_id, first.task_id if len(task_ids) == 1 else "", what) if part]
    return Line("  ".join(parts), is_bad_news(first))
