"""The outermost layer of every RPC: request id, API key, rate, translation of refusals, one log line.

It wraps handlers once, when a servicer is registered, instead of running as a `grpc.aio.ServerInterceptor`,
which would cost an extra coroutine and a new handler object for every call, and would come too late for
messages that can't be parsed. Streams are wrapped around the call of their handler; no message of a stream
passes through code of ours except for its parsing.
"""

import asyncio
import inspect
import logging
import operator
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc import aio

from roomtape.v1 import error_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database.errors import is_full
from roomtape_service.errors import CODES, FieldViolation, Refusal, reason_name
from roomtape_service.ids import Ids
from roomtape_service.observability.context import request_id as logged_request_id
from roomtape_service.rpc.call import EVERY_APPLICATION, Call, authorize, current_call
from roomtape_service.rpc.keys import ApiKeys
from roomtape_service.rpc.rates import RateLimit
from roomtape_service.rpc.status import REQUEST_ID_KEY, database_full, internal, to_status, trailers

__all__ = ["MAX_MESSAGE_BYTES", "Context", "Interceptor"]

# What the contract allows. The transport lets more through, so that the refusal can say its reason; see
# rpc/server.py.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

# After this a caller should try a stopping server again; by then another one, or its next life, is there.
DRAINING_RETRY_SECONDS = 2.0

# A call is logged also when its application's id was refused for its length.
MAX_LOGGED_ID = 64

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BATCHES = frozenset({"/roomtape.v1.IngestService/Publish"})
_LIMITED_SERVICE = "roomtape.v1.RecordingService"
_MILLISECOND_NS = NANOSECONDS // 1000
_CODES_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = aio.ServicerContext[Any, Any]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Behavior: TypeAlias = Callable[[Any, Context], Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Route:
    """What is known of a method before anybody calls it."""

    method: str
    streams: bool
    guarded: bool
    limited: bool
    application_field: str = ""
    application_of: Callable[[Any], str] | None = None


class Interceptor:
    """Wraps the handlers of one server."""

    def __init__(
        self,
        keys: ApiKeys,
        rate: RateLimit,
        ids: Ids,
        clock: Clock,
        log: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        self._keys = keys
        self._rate = rate
        self._ids = ids
        self._clock = clock
        self._log = log or structlog.get_logger("roomtape.rpc")
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Handlers that have not returned, their `finally` included; infrastructure not counted."""
        return self._running

    def drain(self) -> None:
        """From now on new calls are refused with DRAINING; running ones go on."""
        self._draining = True

    async def idle(self) -> None:
        """Waits until no handler runs."""
        await self._idle.wait()

    def wrap(self, method: str, handler: _Handler, *, guarded: bool = True) -> _Handler:
        """The handler with everything around it; `method` is `/package.Service/Method`.

        `guarded=False` is for infrastructure such as health: open to callers without a key, also while
        draining, and logged at debug level only.
        """
        streams = handler.request_streaming or handler.response_streaming
        route = _route(method, streams=streams, guarded=guarded)
        behavior = _behavior(handler)
        if behavior.__module__.endswith("_pb2_grpc"):
            # Inherited from the generated servicer: not implemented.
            return self.unknown(method)
        if not inspect.isasyncgenfunction(behavior) and not inspect.iscoroutinefunction(behavior):
            raise TypeError(f"the handler of {method} is not asynchronous")
        decode = _checked(method, handler.request_deserializer)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(route, behavior), decode, handler.response_serializer
            )
        if handler.response_streaming:
            # Parsed here, not before, so that bytes that are no message are refused with a reason.
            return grpc.unary_stream_rpc_method_handler(
                self._stream(route, behavior, decode), None, handler.response_serializer
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(route, behavior, None, handler.response_serializer), decode, None
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(route, behavior, decode, handler.response_serializer), None, None
        )

    def unknown(self, method: str) -> _Handler:
        """A handler for a method that no service has: answers UNIMPLEMENTED, with a request id."""
        route = _Route(method, streams=False, guarded=False, limited=False)

        async def refuse(_requests: AsyncIterator[bytes], context: Context) -> None:
            async def answer(call: Call) -> None:
                text = f"The server has no method {method}."
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, text, ((REQUEST_ID_KEY, call.request_id),))

            await self._serve(route, context, answer)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _unary(
        self,
        route: _Route,
        behavior: _Behavior,
        decode: Callable[[bytes], Any] | None,
        encode: Callable[[Any], bytes] | None,
    ) -> _Behavior:
        async def handle(received: Any, context: Context) -> bytes:
            async def work(call: Call) -> bytes:
                request = decode(received) if decode else received
                if route.application_of is not None:
                    self._bind(route, route.application_of(request))
                response = await behavior(request, context)
                return encode(response) if encode else response

            return await self._serve(route, context, work)

        return handle

    def _stream(
        self, route: _Route, behavior: _Behavior, decode: Callable[[bytes], Any] | None = None
    ) -> _Behavior:
        generates = inspect.isasyncgenfunction(behavior)

        async def handle(received: Any, context: Context) -> None:
            async def work(call: Call) -> None:
                request = decode(received) if decode else received
                if route.application_of is not None:
                    self._bind(route, route.application_of(request))
                if route.guarded:
                    self._log.info(
                        "rpc_opened",
                        method=route.method,
                        peer=context.peer(),
                        app_id=call.app_id[:MAX_LOGGED_ID],
                    )
                if not generates:
                    await behavior(request, context)
                    return
                async with aclosing(behavior(request, context)) as messages:
                    async for message in messages:
                        await context.write(message)

            await self._serve(route, context, work)

        return handle

    async def _serve(self, route: _Route, context: Context, work: Callable[[Call], Awaitable[_T]]) -> _T:
        started_ns = self._clock.monotonic_ns()
        metadata = context.invocation_metadata() or ()
        call = Call(route.method, self._request_id(metadata), EVERY_APPLICATION)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        current_call.set(call)
        logged_request_id.set(call.request_id)
        if route.guarded:
            call.is_running = True
            self._running += 1
            self._idle.clear()
        try:
            if route.guarded:
                self._admit(call, metadata)
            return await work(call)
        except asyncio.CancelledError as error:
            if _cancelled_by_caller():
                call.code = _code_of_cancelled(context)
                raise
            # A cancellation of the handler's own making would leave the caller waiting for its deadline.
            await self._refuse(error, call, context)
        except aio.AbortError:
            call.code = _code_of_aborted(context)
            raise
        except Exception as error:
            await self._refuse(error, call, context)
        finally:
            self._ended(call)
            self._write(route, call, context, started_ns)

    async def _refuse(self, error: BaseException, call: Call, context: Context) -> NoReturn:
        if isinstance(error, Refusal) and error.reason in CODES:
            refusal = error
        elif is_full(error):
            refusal = database_full()
        else:
            refusal, call.cause = internal(call.request_id), error
        call.code, call.reason = refusal.code, reason_name(refusal.reason)
        status = to_status(refusal, call.request_id)
        if refusal.reason == error_pb2.ERROR_REASON_STREAM_STALLED:
            # Its caller gets that after all that it has not read, at any time or never: not for a stop to wait for.
            self._ended(call)
        try:
            await context.abort(refusal.code, status.message, trailers(status, call.request_id))
        except aio.InternalError:
            # The caller went before it could be told, which gRPC would log as an error of ours.
            raise asyncio.CancelledError from None

    def _ended(self, call: Call) -> None:
        if call.is_running:
            call.is_running = False
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _admit(self, call: Call, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        if self._draining:
            raise Refusal(
                error_pb2.ERROR_REASON_DRAINING,
                "The server is stopping; call again in a moment.",
                retry_after_seconds=DRAINING_RETRY_SECONDS,
            )
        call.caller = self._keys.caller(metadata)

    def _bind(self, route: _Route, app_id: str) -> None:
        # Who names none is told so by the servicer.
        if not app_id:
            return
        authorize(app_id, route.application_field)
        if route.limited:
            self._rate.take(app_id)

    def _request_id(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        for name, value in metadata:
            if name == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
                return value
        return self._ids.token()

    def _write(self, route: _Route, call: Call, context: Context, started_ns: int) -> None:
        usual = logging.INFO if route.guarded else logging.DEBUG
        self._log.log(
            usual if call.cause is None else logging.ERROR,
            "rpc_closed" if route.streams else "rpc",
            method=call.method,
            code=call.code.name,
            reason=call.reason,
            duration_ms=round((self._clock.monotonic_ns() - started_ns) / _MILLISECOND_NS, 3),
            peer=context.peer(),
            app_id=call.app_id[:MAX_LOGGED_ID],
            **({} if call.cause is None else {"exc_info": call.cause}),
        )


def _route(method: str, *, streams: bool, guarded: bool) -> _Route:
    service, _, name = method.removeprefix("/").rpartition("/")
    if not guarded:
        return _Route(method, streams, guarded, limited=False)
    request = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name).input_type
    # What has a request id changes something.
    limited = service == _LIMITED_SERVICE and "request_id" in request.fields_by_name
    for field in ("app_id", "application.app_id", "webhook.app_id"):
        if field.partition(".")[0] in request.fields_by_name:
            return _Route(method, streams, guarded, limited, field, operator.attrgetter(field))
    return _Route(method, streams, guarded, limited)


def _behavior(handler: _Handler) -> _Behavior:
    # The types of handlers know the synchronous context only.
    behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    assert behavior is not None
    return cast("_Behavior", behavior)


def _checked(method: str, decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    # Only batches of frames can honestly grow so large.
    large = (
        [FieldViolation("frames", f"has more than {MAX_MESSAGE_BYTES} bytes")] if method in _BATCHES else []
    )

    def parse(data: bytes) -> Any:
        if len(data) > MAX_MESSAGE_BYTES:
            raise Refusal(
                error_pb2.ERROR_REASON_BATCH_TOO_LARGE,
                f"The message has {len(data)} bytes, over {MAX_MESSAGE_BYTES}; send it in smaller pieces.",
                metadata={"sizeBytes": str(len(data)), "limitBytes": str(MAX_MESSAGE_BYTES)},
                fields=large,
            )
        if decode is None:
            return data
        try:
            return decode(data)
        except DecodeError:
            raise Refusal(
                error_pb2.ERROR_REASON_INVALID_VALUE,
                f"The message can't be parsed as the request of {method}; "
                "generate the client from the same proto package.",
                metadata={"method": method},
            ) from None

    return parse


def _cancelled_by_caller() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _code_of_cancelled(context: Context) -> grpc.StatusCode:
    # None without a deadline, whatever its type says.
    remaining: object = context.time_remaining()
    if isinstance(remaining, float | int) and remaining <= 0:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _code_of_aborted(context: Context) -> grpc.StatusCode:
    # At run time a number, whatever its type says.
    code: object = context.code()
    return _CODES_BY_NUMBER[code] if isinstance(code, int) else grpc.StatusCode.UNKNOWN
