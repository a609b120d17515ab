"""One stream of a publishing session, from `open` to its end."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc import aio

from roomtape.client.cancelling import cancelled
from roomtape.client.errors import DeadlineExceeded, Internal, RoomtapeError, Unavailable, from_rpc_error
from roomtape.client.session import PublishSession
from roomtape.v1 import ingest_pb2

__all__ = ["Closed", "End", "OpenPublish", "PublishStream", "RedirectedTo", "StreamHooks"]

Call = aio.StreamStreamCall[ingest_pb2.PublishRequest, ingest_pb2.PublishResponse]
OpenPublish = Callable[[], Call]


@dataclass(frozen=True, slots=True)
class Closed:
    """We closed, and all is safe."""


@dataclass(frozen=True, slots=True)
class RedirectedTo:
    """Go on at another server."""

    target: str


End = Closed | RedirectedTo


@dataclass(frozen=True, slots=True)
class StreamHooks:
    """Whom a stream tells what came."""

    opened: Callable[[], None]
    acknowledged: Callable[[list[tuple[str, int]]], None]
    rejected: Callable[[ingest_pb2.FramesRejected], None]


class PublishStream:
    """Sends what the session has due, and tells what comes back."""

    def __init__(
        self, session: PublishSession, hooks: StreamHooks, wake: asyncio.Event, reply_seconds: float
    ) -> None:
        self._session = session
        self._hooks = hooks
        self._wake = wake
        self._reply_seconds = reply_seconds

    async def run(self, open_publish: OpenPublish) -> End:
        """Runs one stream to its end.

        Raises the RoomtapeError with which it ended; Unavailable when the server stops, or did not say why.
        """
        call = open_publish()
        try:
            # A server that refused at once has closed the stream already; reading says why.
            with contextlib.suppress(RoomtapeError):
                await self._send(call, self._session.open_request())
            return await self._opening(call) or await self._both_ways(call)
        finally:
            call.cancel()

    async def _opening(self, call: Call) -> End | None:
        try:
            async with asyncio.timeout(self._reply_seconds):
                response = await self._receive(call)
        except TimeoutError as cause:
            text = f"the server did not answer `open` for {self._reply_seconds:g} s"
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, text) from cause
        if response.WhichOneof("message") not in ("opened", "redirect", "goodbye"):
            raise Internal(grpc.StatusCode.INTERNAL, "the server's first message is no answer to `open`")
        return self._handle(response)

    async def _both_ways(self, call: Call) -> End:
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            # The reader knows why the stream ended, unless the writer itself is at fault.
            if writer.done() and not isinstance(error := writer.exception(), RoomtapeError | None):
                raise error
            return await reader
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, call: Call) -> End:
        while True:
            end = self._handle(await self._receive(call))
            if end is not None:
                return end

    async def _write(self, call: Call) -> None:
        while True:
            while (request := self._session.take()) is not None:
                await self._send(call, request)
            seconds = self._session.due_seconds()
            if seconds is None:
                return
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _handle(self, response: ingest_pb2.PublishResponse) -> End | None:
        match response.WhichOneof("message"):
            case "opened":
                self._hooks.acknowledged(self._session.opened(response.opened))
                self._hooks.opened()
            case "acknowledgement":
                self._hooks.acknowledged(self._session.acknowledge([response.acknowledgement]))
            case "frames_rejected":
                self._hooks.rejected(response.frames_rejected)
            case "redirect":
                return RedirectedTo(response.redirect.target)
            case "goodbye":
                self._hooks.acknowledged(self._session.acknowledge(response.goodbye.acknowledgements))
                if response.goodbye.reason == ingest_pb2.GOODBYE_REASON_CLOSED:
                    return Closed()
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            case _:
                # A message that is newer than this library is none that it asked for.
                pass
        return None

    async def _send(self, call: Call, request: ingest_pb2.PublishRequest) -> None:
        try:
            await call.write(request)
        except aio.AioRpcError as cause:
            raise from_rpc_error(cause) from cause
        except asyncio.InvalidStateError as cause:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "the stream is over") from cause
        except asyncio.CancelledError as cause:
            raise cancelled(cause) from None

    async def _receive(self, call: Call) -> ingest_pb2.PublishResponse:
        try:
            response = await call.read()
        except aio.AioRpcError as cause:
            raise from_rpc_error(cause) from cause
        except asyncio.CancelledError as cause:
            raise cancelled(cause) from None
        if isinstance(response, ingest_pb2.PublishResponse):
            return response
        raise Unavailable(grpc.StatusCode.UNAVAILABLE, "the stream ended without a goodbye")
