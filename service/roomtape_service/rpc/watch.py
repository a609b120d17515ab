"""WatchService: one stream for each watcher, all of them fed by the same log.

The promises are written in `proto/roomtape/v1/event.proto`.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import grpc
from grpc import aio

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.errors import Refusal
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.log import EventLog
from roomtape_service.rpc import validation
from roomtape_service.rpc.watch_stream import WatchStream

__all__ = ["WatchService", "WatchSettings", "WatchStatistics"]

_SERVICE = "roomtape.v1.WatchService"
# A filter is looked at for each event; who needs more than this watches without.
_FILTER_ENTRIES = 1000
# Watchers of a server that stops come back spread over this time.
_RETRY_SECONDS = (0.5, 3.0)

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
        self._streams: set[WatchStream] = set()
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
            stream = WatchStream(
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
