"""Stored events in memory for a moment, for all who are behind."""

from collections import OrderedDict
from collections.abc import Sequence

from roomtape_service.events.tail import LoggedEvent

__all__ = ["PAGE_EVENTS", "Pages"]

PAGE_EVENTS = 128
"""What a watcher that is behind holds at most while it does not read: more is read faster, and dearer to hold."""

# A few dozen pages: watchers that fell behind together read the same ones.
_CAPACITY_BYTES = 4 * 1024 * 1024


class Pages:
    """The newest pages that somebody read, each begun behind a multiple of `PAGE_EVENTS` and full.

    However many watchers are behind, a page is read and held once for those who are at about the same place.
    """

    def __init__(self, capacity_bytes: int = _CAPACITY_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._pages: OrderedDict[tuple[str, int], Sequence[LoggedEvent]] = OrderedDict()

    @staticmethod
    def beginning(sequence: int) -> int:
        """The place after which the page begins that has the event after `sequence`."""
        return sequence - sequence % PAGE_EVENTS

    def after(self, app_id: str, sequence: int) -> Sequence[LoggedEvent] | None:
        """The events after a place up to the end of its page; None if that is not here."""
        key = app_id, self.beginning(sequence)
        page = self._pages.get(key)
        if page is None:
            return None
        self._pages.move_to_end(key)
        return page if sequence == key[1] else page[sequence - key[1] :]

    def keep(self, app_id: str, beginning: int, events: Sequence[LoggedEvent]) -> None:
        """Takes what was read after a beginning, if it is a full page: nothing will ever be added to that."""
        key = app_id, beginning
        if len(events) < PAGE_EVENTS or events[0].sequence != beginning + 1 or key in self._pages:
            return
        self._pages[key] = events
        self._bytes += _bytes(events)
        while self._bytes > self._capacity_bytes:
            _, oldest = self._pages.popitem(last=False)
            self._bytes -= _bytes(oldest)


def _bytes(events: Sequence[LoggedEvent]) -> int:
    return sum(len(event.response) for event in events)
