"""A watcher's place in the log."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from roomtape_service.events.filter import EventFilter
from roomtape_service.events.tail import LoggedEvent, Tail

__all__ = ["BATCH_EVENTS", "Cursor", "Read"]

# What a watcher that is behind gets at once: large enough to read fast, small enough to hold no memory.
BATCH_EVENTS = 256

Read = Callable[["Cursor", Tail], Awaitable[Sequence[LoggedEvent]]]


class Cursor:
    """Walks along an application's log: every matching event once, in order.

    1. What is in memory is taken from there; what is older is read from the database in batches.
    2. At the head the cursor waits. Events that it does not want do not wake it; they move it all the same.
    3. It buffers nothing, however slow its watcher is.
    """

    def __init__(self, tail: Tail, wanted: EventFilter, read: Read) -> None:
        self.filter = wanted
        self.position = 0
        self._tail = tail
        self._read = read
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> Sequence[LoggedEvent]:
        """The next events, after which `position` stands; empty when there are none, or none that match.

        Raises Refusal EVENT_HISTORY_COMPACTED when retention went past the cursor.
        """
        events = self._tail.after(self.position, BATCH_EVENTS)
        if events is None:
            return await self._read(self, self._tail)
        if not events:
            return events
        self.position = events[-1].sequence
        if self.filter.takes_all:
            return events
        wanted = self.filter.matches
        return [event for event in events if wanted(event.task_id, event.room_id, event.type)]

    @property
    def at_head(self) -> bool:
        """Whether nothing is there to read."""
        return self.position >= self._tail.head

    async def wait(self) -> None:
        """Returns when there may be something to read, or after `interrupt`."""
        if not self.at_head:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def interrupt(self) -> None:
        """Ends the waiting; the cursor then stands at the head, for nothing in between matched."""
        self.wake(self._tail.head)

    def wake(self, at: int) -> None:
        """As `Waiting`: nothing that matches lies between the position and `at`."""
        if self._waiter is not None and not self._waiter.done():
            self.position = max(self.position, at)
            self._waiter.set_result(None)
