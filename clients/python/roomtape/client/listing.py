"""Events page by page, for programs that can't keep a stream open."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from roomtape.client.backoff import RESUMABLE, Backoff
from roomtape.client.errors import ClientClosed, RoomtapeError
from roomtape.v1 import event_pb2

__all__ = ["EventList", "PageCursor", "SyncEventList"]

_LOG = logging.getLogger("roomtape.client")

# Shorter than the deadline that calls have unless told otherwise, and than proxies let a silent call live.
_WAIT_SECONDS = 20


class PageCursor:
    """Steps from page to page: what to ask for, what to hand out, from where to go on."""

    def __init__(
        self,
        app_id: str,
        *,
        after: str | None,
        origin: event_pb2.WatchOrigin.ValueType,
        filter: event_pb2.EventFilter | None,
        follow: bool,
    ) -> None:
        self.resume_token = after
        self.is_done = False
        self.follow = follow
        self._request = event_pb2.ListEventsRequest(app_id=app_id, origin=origin, filter=filter)
        self._page: deque[event_pb2.Event] = deque()
        self._page_token = after

    def request(self) -> event_pb2.ListEventsRequest:
        """What to ask for next."""
        if self._page_token is not None:
            self._request.resume_token = self._page_token
        if self.follow:
            self._request.wait.seconds = _WAIT_SECONDS
        return self._request

    def accept(self, response: event_pb2.ListEventsResponse) -> None:
        """A page came."""
        self._page.extend(response.events)
        self._page_token = response.resume_token
        if not self._page:
            self.resume_token = response.resume_token
        self.is_done = response.is_over or not (response.has_more or self.follow)

    def take(self) -> event_pb2.Event | None:
        """The next event of the page."""
        if not self._page:
            return None
        event = self._page.popleft()
        if not self._page:
            self.resume_token = self._page_token
        return event


class EventList(AsyncIterator[event_pb2.Event]):
    """The events of an application in the order in which they happened, read page by page.

    It ends at the newest; one that follows waits for what comes instead, and for a server that is away, and ends when
    the filter names one task and its last event was handed out.

    Raises HistoryCompacted or HistoryLost when events that were not handed out are gone, and any other RoomtapeError
    that trying again can't help.
    """

    def __init__(
        self,
        call: Callable[[event_pb2.ListEventsRequest], Awaitable[event_pb2.ListEventsResponse]],
        cursor: PageCursor,
        backoff: Backoff,
    ) -> None:
        self._call = call
        self._cursor = cursor
        self._backoff = backoff

    @property
    def resume_token(self) -> str | None:
        """From here a later list or watch goes on; it lies after the newest page of which all was handed out."""
        return self._cursor.resume_token

    async def __anext__(self) -> event_pb2.Event:
        while (event := self._cursor.take()) is None:
            if self._cursor.is_done:
                raise StopAsyncIteration
            try:
                self._cursor.accept(await self._call(self._cursor.request()))
                self._backoff.reset()
            except RoomtapeError as error:
                await asyncio.sleep(_wait_seconds(error, self._cursor, self._backoff))
        return event


class SyncEventList(Iterator[event_pb2.Event]):
    """The same, for threads."""

    def __init__(
        self,
        call: Callable[[event_pb2.ListEventsRequest], event_pb2.ListEventsResponse],
        cursor: PageCursor,
        backoff: Backoff,
        wait: Callable[[float], object],
    ) -> None:
        """`wait` takes so many seconds, or returns as soon as the client is closed."""
        self._call = call
        self._cursor = cursor
        self._backoff = backoff
        self._wait = wait

    @property
    def resume_token(self) -> str | None:
        """From here a later list or watch goes on; it lies after the newest page of which all was handed out."""
        return self._cursor.resume_token

    def __next__(self) -> event_pb2.Event:
        while (event := self._cursor.take()) is None:
            if self._cursor.is_done:
                raise StopIteration
            try:
                self._cursor.accept(self._call(self._cursor.request()))
                self._backoff.reset()
            except RoomtapeError as error:
                self._wait(_wait_seconds(error, self._cursor, self._backoff))
        return event


def _wait_seconds(error: RoomtapeError, cursor: PageCursor, backoff: Backoff) -> float:
    """How long to wait for the server; raises the error if that can't help."""
    if not cursor.follow or isinstance(error, ClientClosed) or error.code not in RESUMABLE:
        raise error
    seconds = backoff.next_seconds(error.retry_after)
    _LOG.info("list_interrupted error=%s retry_seconds=%.3f", error, seconds)
    return seconds
