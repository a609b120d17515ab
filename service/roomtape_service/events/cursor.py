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

    def take(self) -> Sequence[LoggedEvent] | None:
        """The next events in memory, after which `position` stands; None if they must be read.

        Empty when there are none, or none that match.
        """
        if self.filter.labels and self.position < self._tail.labelled_after:
            return None
        events = self._tail.after(self.position, BATCH_EVENTS)
        if not events:
            return events
        self.position = events[-1].sequence
        if self.filter.takes_all:
            return events
        wanted = self.filter.matches
        return [event for event in events if wanted(event.task_id, event.room_id, event.type, event.labels)]

    async def read(self) -> Sequence[LoggedEvent]:
        """As `take`, from the database.

        Raises Refusal EVENT_HISTORY_COMPACTED when retention went past the cursor.
        """
        return await self._read(self, self._tail)

    @property
    def at_head(self) -> bool:
        """Whether nothing is there to take or read."""
        return self.position >= self._tail.head

    def wait(self) -> asyncio.Future[None]:
        """At the head: done when there may be something to take or read, or after `interrupt`."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def interrupt(self) -> None:
        """Ends the waiting; the cursor then stands at the head, for nothing in between matched."""
        self.wake(self._tail.head)

    def wake(self, at: int) -> None:
        """As `Waiting`: nothing that matches lies between the position and `at`."""
        if self._waiter is not None:
            if at > self.position:
                self.position = at
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
