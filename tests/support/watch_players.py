"""Watchers and callers of a service that comes and goes; what they hear is recorded."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from roomtape.v1 import (
    event_pb2,
    event_pb2_grpc,
    media_pb2,
    room_pb2,
    room_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)
from roomtape_service.events import token
from tests.support.watch_traffic import Call, Stream, matches

__all__ = ["Caller", "Watcher", "channel_to"]

T = TypeVar("T")

# The shortest that a service takes. Who hears nothing for two and a half of it may give up.
_BOOKMARK_SECONDS = 1
_SILENCE_SECONDS = 2.5 * _BOOKMARK_SECONDS
# Between two attempts, so that a service that stops is not asked all the time.
_AGAIN_SECONDS = 0.02
# How long a slow watcher looks at each message.
_SLOW_SECONDS = 0.002
_CALL_SECONDS = 20.0

_OPTIONS = (
    # Channels of one process share their connections unless they are told not to.
    ("grpc.use_local_subchannel_pool", 1),
    # A service that starts again is found soon.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    # The least that HTTP/2 lets a peer send ahead, so that who does not read holds up its stream soon.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65_535),
)
# What a call may get while a service goes and another comes.
_AGAIN = frozenset({"UNAVAILABLE", "DRAINING", "NO_CAPACITY", "CANCELLED"})


@asynccontextmanager
async def channel_to(target: str) -> AsyncIterator[aio.Channel]:
    """A connection of its own."""
    async with aio.insecure_channel(target, options=_OPTIONS) as channel:
        yield channel


class Watcher:
    """Watches until it is let go, and resumes from its last token whenever a stream ends."""

    def __init__(
        self,
        target: str,
        app_id: str,
        wanted: event_pb2.EventFilter,
        origin: event_pb2.WatchOrigin.ValueType,
        *,
        is_slow: bool = False,
    ) -> None:
        self.streams: list[Stream] = []
        self.wanted = wanted
        self._target = target
        self._app_id = app_id
        self._origin = origin
        self._is_slow = is_slow
        self._reading = asyncio.Event()
        self._reading.set()
        self._tokens: list[str] = []
        self._call: (
            aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse] | None
        ) = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run())

    def pause(self) -> None:
        """Reads no more."""
        self._reading.clear()

    def go_on(self) -> None:
        """Reads again."""
        self._reading.set()

    def cancel(self, back: int) -> None:
        """Ends its stream; the next one begins `back` messages before the last."""
        if self._call is not None:
            self._call.cancel()
        del self._tokens[max(1, len(self._tokens) - back) :]

    def has_all_of(self, log: Sequence[event_pb2.Event]) -> bool:
        """Whether everything that matches has come, by the last one that does."""
        last = next((event.sequence for event in reversed(log) if matches(self.wanted, event)), 0)
        return any(stream.place >= last for stream in self.streams[-1:])

    def knows(self, sequence: int) -> bool:
        """Whether it knows that everything up to the sequence has come, be it by a bookmark."""
        return any(stream.place >= sequence for stream in self.streams[-1:])

    @property
    def failure(self) -> BaseException | None:
        """Why it watches no more, if it failed."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def let_go(self) -> None:
        """Ends it. Raises what it failed with."""
        assert self._task is not None
        self._task.cancel()
        (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def _run(self) -> None:
        async with channel_to(self._target) as channel:
            stub = event_pb2_grpc.WatchServiceStub(channel)
            while True:
                request, stream = self._next()
                self.streams.append(stream)
                self._call = stub.WatchEvents(request, wait_for_ready=True)
                try:
                    await self._follow(self._call, stream)
                except aio.AioRpcError as error:
                    stream.end = _reason(error)
                except asyncio.CancelledError:
                    stream.end = "CANCELLED"
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                except TimeoutError:
                    stream.end = "SILENT"
                finally:
                    self._call.cancel()
                if stream.end == "OK":
                    return
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _follow(
        self,
        call: "aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse]",
        stream: Stream,
    ) -> None:
        while True:
            await self._reading.wait()
            async with asyncio.timeout(_SILENCE_SECONDS if stream.messages else None):
                message = await call.read()
            if not isinstance(message, event_pb2.WatchEventsResponse):
                stream.end = "OK"
                return
            stream.messages.append(message)
            self._tokens.append(message.resume_token)
            if self._is_slow:
                await asyncio.sleep(_SLOW_SECONDS)

    def _next(self) -> tuple[event_pb2.WatchEventsRequest, Stream]:
        request = event_pb2.WatchEventsRequest(app_id=self._app_id, filter=self.wanted)
        request.bookmark_interval.FromSeconds(_BOOKMARK_SECONDS)
        after = None
        if self._tokens:
            request.resume_token = self._tokens[-1]
            place = token.decode(request.resume_token, self._app_id)
            after = None if place.is_snapshot else place.sequence
        else:
            request.origin = self._origin
        return request, Stream(self.wanted, self._origin, after, time.monotonic_ns())


class Caller:
    """Opens a room, records it and closes it, by one call after the other, each tried until it is answered."""

    def __init__(self, channel: aio.Channel, app_id: str, room_id: str) -> None:
        self.calls: list[Call] = []
        self._rooms = room_pb2_grpc.RoomServiceStub(channel)
        self._recording = task_pb2_grpc.RecordingServiceStub(channel)
        self._app_id = app_id
        self._room_id = room_id

    async def run(self) -> None:
        """Returns when the last call was answered."""
        app_id, room_id = self._app_id, self._room_id
        names = {
            event_type: f"{room_id}-{event_type}"
            for event_type in (
                event_pb2.EVENT_TYPE_ROOM_CREATED,
                event_pb2.EVENT_TYPE_TASK_STARTED,
                event_pb2.EVENT_TYPE_TASK_STOPPED,
                event_pb2.EVENT_TYPE_ROOM_CLOSED,
            )
        }
        create = room_pb2.CreateRoomRequest(
            app_id=app_id, room_id=room_id, request_id=names[event_pb2.EVENT_TYPE_ROOM_CREATED]
        )
        await self._until_answered(
            event_pb2.EVENT_TYPE_ROOM_CREATED,
            lambda: self._rooms.CreateRoom(create, timeout=_CALL_SECONDS, wait_for_ready=True),
        )
        start = task_pb2.StartRecordRequest(
            app_id=app_id,
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE,
            output=task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_OGG]),
            labels={"of": room_id[-1]},
            request_id=names[event_pb2.EVENT_TYPE_TASK_STARTED],
        )
        call, started = await self._until_answered(
            event_pb2.EVENT_TYPE_TASK_STARTED,
            lambda: self._recording.StartRecord(start, timeout=_CALL_SECONDS, wait_for_ready=True),
        )
        call.task_sequence = started.task.task_sequence
        call.token_sequence = token.decode(started.resume_token, app_id).sequence
        stop = task_pb2.StopRecordRequest(
            app_id=app_id,
            task_id=started.task.task_id,
            request_id=names[event_pb2.EVENT_TYPE_TASK_STOPPED],
        )
        call, stopped = await self._until_answered(
            event_pb2.EVENT_TYPE_TASK_STOPPED,
            lambda: self._recording.StopRecord(stop, timeout=_CALL_SECONDS, wait_for_ready=True),
        )
        call.task_sequence = stopped.task.task_sequence
        close = room_pb2.CloseRoomRequest(
            app_id=app_id, room_id=room_id, request_id=names[event_pb2.EVENT_TYPE_ROOM_CLOSED]
        )
        await self._until_answered(
            event_pb2.EVENT_TYPE_ROOM_CLOSED,
            lambda: self._rooms.CloseRoom(close, timeout=_CALL_SECONDS, wait_for_ready=True),
        )

    async def _until_answered(
        self, event_type: event_pb2.EventType.ValueType, call: Callable[[], Awaitable[T]]
    ) -> tuple[Call, T]:
        record = Call(event_type, self._room_id, time.monotonic_ns())
        self.calls.append(record)
        while True:
            record.attempts += 1
            try:
                reply = await call()
            except aio.AioRpcError as error:
                if _reason(error) not in _AGAIN:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                record.answered_ns = time.monotonic_ns()
                return record, reply


def _reason(error: aio.AioRpcError) -> str:
    """The reason of an error of the service, else its code."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            return str(info.reason)
    return error.code().name
