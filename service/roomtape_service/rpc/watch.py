"""WatchService: one stream for each watcher, or page after page, all of them fed by the same log.

The promises are written in `proto/roomtape/v1/event.proto`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import Database
from roomtape_service.errors import Refusal
from roomtape_service.events import token
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.log import EventLog
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.watch_page import WatchPage
from roomtape_service.rpc.watch_requests import check_list, check_watch
from roomtape_service.rpc.watch_snapshot import Snapshot, Snapshots
from roomtape_service.rpc.watch_stream import WatchStream
from roomtape_service.tasks.refusals import task_not_found

__all__ = ["WatchService", "WatchSettings", "WatchStatistics"]

_SERVICE = "roomtape.v1.WatchService"
_DEFAULT_PAGE_EVENTS = 100
_MOST_PAGE_EVENTS = 1000
_MOST_WAIT_SECONDS = 30.0
# What is left of a call's deadline for the way back.
_RETURN_SECONDS = 0.5
# Watchers of a server that stops come back spread over this time.
_RETRY_SECONDS = (0.5, 3.0)

_log = structlog.get_logger(__name__)

_Context: TypeAlias = aio.ServicerContext[event_pb2.WatchEventsRequest, bytes]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Limits of watch streams."""

    streams_per_application: int = 10_000
    """Open streams and waiting ListEvents that an application may have; one more is refused with TOO_MANY_WATCHERS."""
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
    stalled: int
    """Streams that were let go because nothing was read, and whose watchers have not noticed yet."""


class WatchService:
    """The servicer. Messages reach gRPC as bytes that were serialized once, for all watchers together."""

    def __init__(
        self, database: Database, log: EventLog, random: Random, settings: WatchSettings | None = None
    ) -> None:
        self._log = log
        self._snapshots = Snapshots(database, log)
        self._random = random
        self._settings = settings or WatchSettings()
        self._open: Counter[str] = Counter()
        self._stalled: Counter[str] = Counter()
        self._streams: set[WatchStream] = set()
        self._pages: set[WatchPage] = set()
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
        listing: grpc.RpcMethodHandler[event_pb2.ListEventsRequest, event_pb2.ListEventsResponse]
        listing = grpc.unary_unary_rpc_method_handler(
            self.ListEvents,
            request_deserializer=event_pb2.ListEventsRequest.FromString,
            response_serializer=event_pb2.ListEventsResponse.SerializeToString,
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
        handlers = {"WatchEvents": handler, "ListEvents": listing}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        server.add_registered_method_handlers(_SERVICE, handlers)

    async def WatchEvents(self, request: event_pb2.WatchEventsRequest, context: _Context) -> None:
        """Streams events until the watcher goes, the watched task is over, or the server drains."""
        check_watch(request)
        if self._draining:
            raise self._drained()
        with self._counted(request.app_id):
            try:
                await self._watch(request, context)
            except Refusal as refusal:
                if refusal.reason == error_pb2.ERROR_REASON_STREAM_STALLED:
                    self._let_go(request.app_id, context)
                raise

    async def ListEvents(
        self, request: event_pb2.ListEventsRequest, context: Context
    ) -> event_pb2.ListEventsResponse:
        """A page of what is there, or after a wait the first that comes."""
        check_list(request)
        wait_seconds = _seconds(request.wait, context)
        if wait_seconds <= 0:
            return await self._list(request, 0)
        with self._counted(request.app_id):
            return await self._list(request, wait_seconds)

    async def drain(self) -> None:
        """Ends every stream with the bookmark DRAINING and UNAVAILABLE, and every wait; returns when all have ended.

        A watcher that reads nothing is let go soon, and told so if it ever reads.
        """
        self._draining = True
        for stream in self._streams:
            stream.drain()
        for page in self._pages:
            page.hasten()
        await self._ended.wait()

    def statistics(self) -> WatchStatistics:
        """How many streams are open, and of how many applications."""
        return WatchStatistics(self._open.total(), len(self._open), self._stalled.total())

    async def _watch(self, request: event_pb2.WatchEventsRequest, context: _Context) -> None:
        app_id, wanted = request.app_id, EventFilter.of(request.filter)
        place = _place(request.resume_token, app_id, request.WhichOneof("start"))
        is_snapshot = place.is_snapshot if place else request.origin == event_pb2.WATCH_ORIGIN_SNAPSHOT
        oldest = request.origin == event_pb2.WATCH_ORIGIN_OLDEST
        async with self._log.cursor(
            app_id, wanted, place=None if is_snapshot else place, oldest=oldest
        ) as cursor:
            snapshot: Snapshot | None = None
            if is_snapshot:
                snapshot = await self._snapshots.take(app_id, wanted, cursor.position)
                cursor.position = snapshot.sequence
            last_sequence = await self._last_sequence(app_id, wanted)
            stream = WatchStream(
                cursor,
                context.write,
                lambda sequence: self._log.resume_token(app_id, sequence),
                lambda: self._interval(request),
                self._settings.stall_seconds,
                snapshot,
                self._log.snapshot_token(app_id) if is_snapshot else "",
            )
            # The stream holds it for as long as it is being sent.
            del snapshot
            self._streams.add(stream)
            try:
                if self._draining:
                    stream.drain()
                # Its last event was sent to whoever holds the token, or is in the snapshot; no other will come.
                over = last_sequence is not None and last_sequence <= cursor.position
                if await stream.run(over=over):
                    return
            finally:
                stream.close()
                self._streams.discard(stream)
            raise self._drained()

    async def _list(
        self, request: event_pb2.ListEventsRequest, wait_seconds: float
    ) -> event_pb2.ListEventsResponse:
        app_id, wanted = request.app_id, EventFilter.of(request.filter)
        place = _place(request.resume_token, app_id, request.WhichOneof("start"))
        if place is not None and place.is_snapshot:
            raise token.unreadable(
                "leads to a snapshot, which only WatchEvents sends; start at the OLDEST or NOW"
            )
        oldest = request.origin != event_pb2.WATCH_ORIGIN_NOW
        async with self._log.cursor(app_id, wanted, place=place, oldest=oldest) as cursor:
            last_sequence = await self._last_sequence(app_id, wanted)
            page = WatchPage(
                cursor,
                lambda sequence: self._log.resume_token(app_id, sequence),
                min(request.page_size or _DEFAULT_PAGE_EVENTS, _MOST_PAGE_EVENTS),
            )
            self._pages.add(page)
            try:
                return await page.collect(0 if self._draining else wait_seconds, last_sequence)
            finally:
                self._pages.discard(page)

    async def _last_sequence(self, app_id: str, wanted: EventFilter) -> int | None:
        """The place of the only task's last event, if that has ended. Raises Refusal TASK_NOT_FOUND."""
        ends = await self._log.task_ends(app_id, wanted.task_ids)
        for task_id in sorted(wanted.task_ids - ends.keys()):
            raise task_not_found(app_id, task_id)
        only_task = wanted.only_task
        return None if only_task is None else ends[only_task]

    @contextmanager
    def _counted(self, app_id: str) -> Iterator[None]:
        limit = self._settings.streams_per_application
        taken = self._open[app_id] + self._stalled[app_id]
        if taken >= limit:
            raise Refusal(
                error_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
                f"The application {app_id!r} has {taken} watch streams open, and may have {limit}; share "
                "streams, or raise watch_streams_per_application.",
                metadata={"appId": app_id, "open": str(taken), "limit": str(limit)},
            )
        self._open[app_id] += 1
        self._ended.clear()
        try:
            yield
        finally:
            self._open[app_id] -= 1
            if not self._open[app_id]:
                del self._open[app_id]
            if not self._open:
                self._ended.set()

    def _let_go(self, app_id: str, context: _Context) -> None:
        # The end of a stream is sent behind what it was sent before. Until that is read or its connection is gone, gRPC
        # keeps both, so the stream keeps its place: nobody has more of them than they may by reading none.
        self._stalled[app_id] += 1
        # The types know only a class of callbacks that nobody can make.
        context.add_done_callback(cast("Any", lambda _: self._gone(app_id)))
        _log.info("watch_stalled", app_id=app_id, stalled=self._stalled[app_id])

    def _gone(self, app_id: str) -> None:
        self._stalled[app_id] -= 1
        if not self._stalled[app_id]:
            del self._stalled[app_id]

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


def _place(resume_token: str, app_id: str, start: str | None) -> token.ResumeToken | None:
    """Where the token points to, if a request starts with one. Raises Refusal INVALID_RESUME_TOKEN."""
    return token.decode(resume_token, app_id) if start == "resume_token" else None


def _seconds(wait: Duration, context: Context) -> float:
    seconds = min(wait.seconds + wait.nanos / NANOSECONDS, _MOST_WAIT_SECONDS)
    # None without a deadline, whatever its type says.
    left = cast("float | None", context.time_remaining())
    return seconds if left is None else min(seconds, left - _RETURN_SECONDS)
