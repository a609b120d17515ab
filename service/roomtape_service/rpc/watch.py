"""WatchService: one stream for each watcher, all of them fed by the same log.

The promises are written in `proto/roomtape/v1/event.proto`.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import grpc
from grpc import aio

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.errors import Refusal
from roomtape_service.events.cursor import Cursor
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.log import EventLog
from roomtape_service.rpc import validation

__all__ = ["WatchService", "WatchSettings", "WatchStatistics"]

_SERVICE = "roomtape.v1.WatchService"
# A filter is looked at for each event; who needs more than this watches without.
_FILTER_ENTRIES = 1000
# Watchers of a server that stops come back spread over this time.
_RETRY_SECONDS = (0.5, 3.0)
# A stall is noticed this much of its limit late at most.
_STALL_CHECKS = 8

_Context: TypeAlias = aio.ServicerContext[event_pb2.WatchEventsRequest, bytes]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Limits of watch streams."""

    streams_per_application: int = 10_000
    """Open streams that an application may have; one more is refused with TOO_MANY_WATCHERS."""
    stall_seconds: float = 60.0
    """How long one message may wait for its watcher before the stream ends with STREAM_STALLED."""
    default_bookmark_seconds: float = 30.0
    """`bookmark_interval` where a request has none."""
    least_bookmark_seconds: float = 1.0
    """A shorter `bookmark_interval` is taken as this."""
    most_bookmark_seconds: float = 300.0
    """A longer `bookmark_interval` is taken as this."""
    bookmark_jitter: float = 0.1
    """By which part of it each interval is longer or shorter, so that streams opened together drift apart."""


@dataclass(frozen=True, slots=True)
class WatchStatistics:
    """What runs now."""

    streams: int
    applications: int


class WatchService:
    """The servicer. Messages reach gRPC as bytes that were serialized once, for all watchers together."""

    def __init__(self, log: EventLog, random: Random, settings: WatchSettings | None = None) -> None:
        self._log = log
        self._random = random
        self._settings = settings or WatchSettings()
        self._open: Counter[str] = Counter()
        self._streams: set[_Stream] = set()
        self._ended = asyncio.Event()
        self._ended.set()
        self._draining = False

    def register(self, server: aio.Server) -> None:
        """Adds the service to a server, as generated code does, but without a serializer for replies."""
        handler: grpc.RpcMethodHandler[event_pb2.WatchEventsRequest, bytes]
        handler = grpc.unary_stream_rpc_method_handler(
            self.WatchEvents,
            request_deserializer=event_pb2.WatchEventsRequest.FromString,
            response_serializer=None,
        )
        handlers = {"WatchEvents": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        server.add_registered_method_handlers(_SERVICE, handlers)

    async def WatchEvents(self, request: event_pb2.WatchEventsRequest, context: _Context) -> None:
        """Streams events until the watcher goes, the watched task is over, or the server drains."""
        _check(request)
        if self._draining:
            raise self._drained()
        app_id = request.app_id
        if self._open[app_id] >= self._settings.streams_per_application:
            limit = self._settings.streams_per_application
            raise Refusal(
                error_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
                f"The application {app_id!r} has {limit} watch streams, as many as it may; share streams.",
                metadata={"appId": app_id, "limit": str(limit)},
            )
        self._open[app_id] += 1
        self._ended.clear()
        try:
            await self._watch(request, context)
        finally:
            self._open[app_id] -= 1
            if not self._open[app_id]:
                del self._open[app_id]
            if not self._open:
                self._ended.set()

    async def drain(self) -> None:
        """Ends every stream with the bookmark DRAINING and UNAVAILABLE; returns when all have ended.

        A watcher that reads nothing keeps its stream open until the server is stopped.
        """
        self._draining = True
        for stream in self._streams:
            stream.drain()
        await self._ended.wait()

    def statistics(self) -> WatchStatistics:
        """How many streams are open, and of how many applications."""
        return WatchStatistics(self._open.total(), len(self._open))

    async def _watch(self, request: event_pb2.WatchEventsRequest, context: _Context) -> None:
        wanted = EventFilter.of(request.filter)
        token = request.resume_token if request.WhichOneof("start") == "resume_token" else None
        oldest = request.origin == event_pb2.WATCH_ORIGIN_OLDEST
        async with self._log.cursor(request.app_id, wanted, resume_token=token, oldest=oldest) as cursor:
            task_id = wanted.only_task
            # Its last event was sent to whoever holds the token; no other will come.
            over = (
                token is not None
                and task_id is not None
                and await self._log.is_over(request.app_id, task_id, cursor.position)
            )
            stream = _Stream(
                cursor,
                context.write,
                lambda sequence: self._log.resume_token(request.app_id, sequence),
                lambda: self._interval(request),
                self._settings.stall_seconds,
            )
            self._streams.add(stream)
            try:
                if self._draining:
                    stream.drain()
                if await stream.run(over=over):
                    return
            finally:
                stream.close()
                self._streams.discard(stream)
            raise self._drained()

    def _interval(self, request: event_pb2.WatchEventsRequest) -> float:
        settings = self._settings
        seconds = settings.default_bookmark_seconds
        if request.HasField("bookmark_interval"):
            asked = request.bookmark_interval.seconds + request.bookmark_interval.nanos / NANOSECONDS
            seconds = min(max(asked, settings.least_bookmark_seconds), settings.most_bookmark_seconds)
        return seconds * self._random.uniform(1 - settings.bookmark_jitter, 1 + settings.bookmark_jitter)

    def _drained(self) -> Refusal:
        return Refusal(
            error_pb2.ERROR_REASON_DRAINING,
            "The server is stopping; resume from the last token in a moment.",
            retry_after_seconds=self._random.uniform(*_RETRY_SECONDS),
        )


class _Stream:
    """One watcher's stream: its cursor, its bookmarks, and the watch over messages that do not get through."""

    def __init__(
        self,
        cursor: Cursor,
        write: Callable[[bytes], Awaitable[None]],
        resume_token: Callable[[int], str],
        interval: Callable[[], float],
        stall_seconds: float,
    ) -> None:
        self._cursor = cursor
        self._write = write
        self._resume_token = resume_token
        self._interval = interval
        self._interval_seconds = interval()
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._wrote_at = 0.0
        self._writing_since: float | None = None
        self._draining = False
        self._stalled = False

    async def run(self, *, over: bool) -> bool:
        """Sends STARTED, events and bookmarks; True after the last event of the only task, False when drained.

        `over` says that the only task's last event lies before the cursor. Raises Refusal STREAM_STALLED.
        """
        cursor, write, now = self._cursor, self._write, self._loop.time
        only_task = cursor.filter.only_task
        self._wrote_at = now()
        self._tick()
        try:
            await self._bookmark(event_pb2.BOOKMARK_REASON_STARTED)
            if over:
                return True
            while True:
                events = cursor.take()
                if events is None:
                    events = await cursor.read()
                # Five thousand watchers wait for this loop at once: no call in it that could be left out.
                for event in events:
                    self._writing_since = self._wrote_at = now()
                    await write(event.response)
                    self._writing_since = None
                    if event.ends_task and event.task_id == only_task:
                        return True
                if self._draining:
                    await self._bookmark(event_pb2.BOOKMARK_REASON_DRAINING)
                    return False
                if not events and now() >= self._wrote_at + self._interval_seconds:
                    await self._bookmark(event_pb2.BOOKMARK_REASON_IDLE)
                    self._interval_seconds = self._interval()
                elif cursor.at_head:
                    await cursor.wait()
        except asyncio.CancelledError:
            assert self._task is not None
            if not self._stalled or self._task.uncancel():
                raise
            raise Refusal(
                error_pb2.ERROR_REASON_STREAM_STALLED,
                f"Nothing was read for {self._stall_seconds:g} seconds; resume from the last token.",
                metadata={"seconds": f"{self._stall_seconds:g}"},
                retry_after_seconds=_RETRY_SECONDS[0],
            ) from None

    def drain(self) -> None:
        """Ends the stream when what was being sent has been sent."""
        self._draining = True
        self._cursor.interrupt()

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _bookmark(self, reason: event_pb2.BookmarkReason.ValueType) -> None:
        sequence = self._cursor.position
        response = event_pb2.WatchEventsResponse(
            resume_token=self._resume_token(sequence),
            bookmark=event_pb2.Bookmark(reason=reason, sequence=sequence),
        )
        self._writing_since = self._wrote_at = self._loop.time()
        await self._write(response.SerializeToString())
        self._writing_since = None

    def _tick(self) -> None:
        # One timer that is moved seldom costs less than one for each message.
        now = self._loop.time()
        bookmark_due = self._wrote_at + self._interval_seconds
        next_check = now + min(self._stall_seconds / _STALL_CHECKS, self._interval_seconds)
        if self._writing_since is not None:
            if now >= self._writing_since + self._stall_seconds:
                self._stalled = True
                assert self._task is not None
                self._task.cancel()
                return
        elif now >= bookmark_due:
            self._cursor.interrupt()
        else:
            next_check = min(next_check, bookmark_due)
        self._timer = self._loop.call_at(next_check, self._tick)


def _check(request: event_pb2.WatchEventsRequest) -> None:
    wanted = request.filter
    validation.refuse(
        validation.app_id(request.app_id),
        validation.enum(request.origin, event_pb2.WatchOrigin, "origin"),
        *(
            _too_many(f"filter.{name}", len(values))
            for name, values in (
                ("task_ids", wanted.task_ids),
                ("room_ids", wanted.room_ids),
                ("types", wanted.types),
            )
        ),
        *(
            validation.enum(value, event_pb2.EventType, f"filter.types[{index}]", required=True)
            for index, value in enumerate(wanted.types[:_FILTER_ENTRIES])
        ),
    )


def _too_many(field: str, count: int) -> validation.Problem | None:
    if count <= _FILTER_ENTRIES:
        return None
    return validation.Problem(
        error_pb2.ERROR_REASON_INVALID_VALUE,
        field,
        f"has {count} entries; at most {_FILTER_ENTRIES} fit, or watch without a filter",
        {"count": str(count), "limit": str(_FILTER_ENTRIES)},
    )
