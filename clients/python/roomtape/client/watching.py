"""Watching events with asyncio: one life of streams that follow each other."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from roomtape.client.backoff import RESUMABLE, Backoff
from roomtape.client.cancelling import cancelled
from roomtape.client.cursor import WatchCursor, WatchStatistics
from roomtape.client.errors import ClientClosed, DeadlineExceeded, RoomtapeError, from_rpc_error
from roomtape.client.snapshot import Snapshot
from roomtape.v1 import event_pb2

__all__ = ["OpenWatch", "Watch", "WatchCall"]

WatchCall = aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse]
OpenWatch = Callable[[event_pb2.WatchEventsRequest], WatchCall]

_LOG = logging.getLogger("roomtape.client")


class Watch(AsyncIterator[event_pb2.Event]):
    """The events of an application, one by one and each once.

    A stream that breaks, or is silent for two and a half bookmark intervals, is opened again behind the last
    message, after a wait with full jitter; the iteration does not notice. It ends when the server ends the
    stream well: the filter names one task, and its last event was handed out.

    Raises HistoryCompacted or HistoryLost when events that were not handed out are gone, and any other
    RoomtapeError that trying again can't help. After that the iteration is over.

    A cancelled step takes nothing out: the next step goes on at the same event. Use it as a context manager, or
    call `aclose`, to end the stream on the server at once.
    """

    def __init__(
        self,
        open_watch: OpenWatch,
        cursor: WatchCursor,
        backoff: Backoff,
        outage_seconds: float | None = None,
    ) -> None:
        self._open_watch = open_watch
        self._cursor = cursor
        self._backoff = backoff
        self._outage_seconds = outage_seconds
        self._outage_end: float | None = None
        self._call: WatchCall | None = None
        self._ahead: event_pb2.Event | None = None
        self._registered = False
        self._over = False

    @property
    def resume_token(self) -> str | None:
        """From here a later watch goes on after everything that was handed out; None before the first message."""
        return self._cursor.resume_token

    def statistics(self) -> WatchStatistics:
        """The counts so far."""
        return self._cursor.statistics()

    async def start(self) -> None:
        """Returns when the server has registered the watch: what happens from now on will come.

        Without it, the first step of the iteration does that too. Raises as the iteration does.
        """
        while not self._registered and not self._over:
            self._ahead = await self._step()

    async def snapshot(self) -> Snapshot | None:
        """The state with which a watch from a SNAPSHOT begins, once all of it has come; the iteration follows it.

        Also where the watch goes on after a token that was kept before a snapshot was whole. None for any other watch;
        for one after a token only when something has happened, or nothing for an interval. Raises as iterating does.
        """
        while self._ahead is None and self._cursor.may_have_snapshot and not self._over:
            self._ahead = await self._step()
        return self._cursor.snapshot

    async def __anext__(self) -> event_pb2.Event:
        event, self._ahead = self._ahead, None
        while event is None and not self._over:
            event = await self._step()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Ends the stream; the iteration is over."""
        self._over = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _step(self) -> event_pb2.Event | None:
        try:
            response = await self._read()
        except RoomtapeError as error:
            await self._recover(error)
            return None
        except asyncio.CancelledError as cause:
            # gRPC ends a call whose read is cancelled; the next step needs a new one.
            self._drop()
            raise cancelled(cause) from None
        self._backoff.reset()
        self._outage_end = None
        self._registered = True
        if response is None:
            self._over = True
            return None
        return self._cursor.accept(response)

    async def _read(self) -> event_pb2.WatchEventsResponse | None:
        if self._call is None:
            self._call = self._open_watch(self._cursor.request())
        try:
            async with asyncio.timeout(self._cursor.silence_seconds):
                response = await self._call.read()
        except aio.AioRpcError as cause:
            raise from_rpc_error(cause) from cause
        except TimeoutError as cause:
            text = f"nothing was heard for {self._cursor.silence_seconds:g} s"
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, text) from cause
        return response if isinstance(response, event_pb2.WatchEventsResponse) else None

    async def _recover(self, error: RoomtapeError) -> None:
        self._drop()
        now = asyncio.get_running_loop().time()
        if self._outage_end is None and self._outage_seconds is not None:
            self._outage_end = now + self._outage_seconds
        seconds = self._backoff.next_seconds(error.retry_after)
        too_late = self._outage_end is not None and now + seconds > self._outage_end
        if isinstance(error, ClientClosed) or error.code not in RESUMABLE or too_late:
            self._over = True
            raise error
        _LOG.info("watch_interrupted error=%s retry_seconds=%.3f", error, seconds)
        await asyncio.sleep(seconds)

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
