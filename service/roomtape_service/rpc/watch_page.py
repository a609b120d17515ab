"""One life of a ListEvents call."""

import asyncio
from collections.abc import Callable, Sequence

from roomtape.v1 import event_pb2
from roomtape_service.events.cursor import Cursor
from roomtape_service.events.tail import LoggedEvent

__all__ = ["WatchPage"]

# Callers take messages of 4 MiB at most unless they say otherwise, and one event has far less than the rest.
_PAGE_BYTES = 1024 * 1024


class WatchPage:
    """Collects a page along a cursor, and waits at the head for its first event."""

    def __init__(self, cursor: Cursor, resume_token: Callable[[int], str], page_size: int) -> None:
        self._cursor = cursor
        self._resume_token = resume_token
        self._page_size = page_size
        self._page: list[LoggedEvent] = []
        self._bytes = 0
        self._is_late = False

    async def collect(self, wait_seconds: float, last_sequence: int | None) -> event_pb2.ListEventsResponse:
        """The page; empty when nothing came for so long. `last_sequence`: the place of the only task's last event.

        Raises Refusal EVENT_HISTORY_COMPACTED.
        """
        cursor = self._cursor
        if last_sequence is not None and cursor.position >= last_sequence:
            self._is_late = True
        timer = asyncio.get_running_loop().call_later(wait_seconds, self.hasten)
        try:
            while True:
                events = cursor.take()
                if events is None:
                    events = await cursor.read()
                if not self._add(events):
                    return self._response(has_more=True, last_sequence=last_sequence)
                if cursor.at_head:
                    if self._page or self._is_late or wait_seconds <= 0:
                        return self._response(has_more=False, last_sequence=last_sequence)
                    await cursor.wait()
        finally:
            timer.cancel()

    def hasten(self) -> None:
        """Ends the waiting."""
        self._is_late = True
        self._cursor.interrupt()

    def _add(self, events: Sequence[LoggedEvent]) -> bool:
        """False when the page is full; the cursor then stands behind its last event."""
        for event in events:
            is_full = len(self._page) == self._page_size or self._bytes + len(event.response) > _PAGE_BYTES
            if self._page and is_full:
                self._cursor.position = self._page[-1].sequence
                return False
            self._page.append(event)
            self._bytes += len(event.response)
        return True

    def _response(self, *, has_more: bool, last_sequence: int | None) -> event_pb2.ListEventsResponse:
        place, only_task = self._cursor.position, self._cursor.filter.only_task
        has_ended = any(event.ends_task and event.task_id == only_task for event in self._page)
        return event_pb2.ListEventsResponse(
            events=[event.event for event in self._page],
            resume_token=self._resume_token(place),
            has_more=has_more,
            is_over=has_ended or (last_sequence is not None and place >= last_sequence),
        )
