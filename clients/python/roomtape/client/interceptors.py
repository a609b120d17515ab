"""gRPC's interceptors for asyncio and for threads; the generated stubs and their types stay as they are."""

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

import grpc
from grpc import aio

from roomtape.client.calls import CallPolicy
from roomtape.client.cancelling import cancelled
from roomtape.client.errors import Cancelled, ClientClosed, RoomtapeError, from_rpc_error

__all__ = ["aio_interceptors", "intercept_sync"]

_Req = TypeVar("_Req")
_Res = TypeVar("_Res")

if TYPE_CHECKING:
    from grpc import _CallFuture, _CallIterator  # pyright: ignore[reportPrivateUsage]


def aio_interceptors(policy: CallPolicy) -> Sequence[aio.ClientInterceptor]:
    """The interceptors of an asyncio channel; gRPC wants one object for each kind of call."""
    return (_AioUnary(policy), _AioServerStream(policy), _AioBothStreams(policy))


def intercept_sync(channel: grpc.Channel, policy: CallPolicy) -> grpc.Channel:
    """The channel with the same for threads. `future()` of its stubs returns when the call is over."""
    return grpc.intercept_channel(channel, _Sync(policy))


def _details(
    policy: CallPolicy, details: aio.ClientCallDetails, timeout: float | None
) -> aio.ClientCallDetails:
    return aio.ClientCallDetails(
        details.method,
        timeout,
        aio.Metadata(*policy.add_metadata(details.metadata)),
        details.credentials,
        details.wait_for_ready,
    )


class _AioUnary(aio.UnaryUnaryClientInterceptor):
    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy

    async def intercept_unary_unary(
        self,
        continuation: Callable[[aio.ClientCallDetails, _Req], Awaitable[aio.UnaryUnaryCall[_Req, _Res]]],
        client_call_details: aio.ClientCallDetails,
        request: _Req,
    ) -> aio.UnaryUnaryCall[_Req, _Res]:
        prepared = self._policy.prepare(request)
        attempts = self._policy.attempts(client_call_details.timeout)
        while True:
            call = await continuation(
                _details(self._policy, client_call_details, attempts.timeout()), prepared
            )
            try:
                await call
            except aio.AioRpcError as cause:
                error = from_rpc_error(cause)
                error.__cause__ = cause
                wait_seconds = attempts.wait_seconds(error)
                if wait_seconds is None:
                    return _FailedCall(call, error)
                await asyncio.sleep(wait_seconds)
            except asyncio.CancelledError as cause:
                return _FailedCall(call, cancelled(cause, self._policy.is_closed()))
            else:
                return call


class _FailedCall(aio.UnaryUnaryCall[_Req, _Res]):
    """The last try of a call, whose error is typed.

    Raising the error in the interceptor would be simpler, but gRPC 1.75 then complains of it once more on standard
    error when it forgets the call.
    """

    def __init__(self, call: aio.UnaryUnaryCall[_Req, _Res], error: BaseException) -> None:
        self._call = call
        self._error = error

    def __await__(self) -> Generator[None, None, _Res]:
        return _raise(self._error).__await__()

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> aio.Metadata:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> aio.Metadata:
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()

    async def details(self) -> str:
        return await self._call.details()

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()


class _AioServerStream(aio.UnaryStreamClientInterceptor):
    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy

    async def intercept_unary_stream(
        self,
        continuation: Callable[[aio.ClientCallDetails, _Req], Awaitable[aio.UnaryStreamCall[_Req, _Res]]],
        client_call_details: aio.ClientCallDetails,
        request: _Req,
    ) -> AsyncIterator[_Res]:
        details = _details(self._policy, client_call_details, client_call_details.timeout)
        return _translated(self._policy, await continuation(details, request))


class _AioBothStreams(aio.StreamStreamClientInterceptor):
    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy

    async def intercept_stream_stream(
        self,
        continuation: Callable[
            [aio.ClientCallDetails, AsyncIterable[_Req] | Iterable[_Req]],
            Awaitable[aio.StreamStreamCall[_Req, _Res]],
        ],
        client_call_details: aio.ClientCallDetails,
        request_iterator: AsyncIterable[_Req] | Iterable[_Req],
    ) -> AsyncIterator[_Res]:
        details = _details(self._policy, client_call_details, client_call_details.timeout)
        return _translated(self._policy, await continuation(details, request_iterator))


async def _raise(error: BaseException) -> NoReturn:
    raise error


async def _translated(policy: CallPolicy, call: AsyncIterable[_Res]) -> AsyncIterator[_Res]:
    try:
        async for response in call:
            yield response
    except aio.AioRpcError as cause:
        raise from_rpc_error(cause) from cause
    except asyncio.CancelledError as cause:
        raise cancelled(cause, policy.is_closed()) from None


class _SyncDetails(grpc.ClientCallDetails):
    def __init__(self, policy: CallPolicy, given: grpc.ClientCallDetails, timeout: float | None) -> None:
        self.method = given.method
        self.timeout = timeout
        self.metadata = policy.add_metadata(given.metadata)
        self.credentials = given.credentials
        self.wait_for_ready = given.wait_for_ready
        self.compression = given.compression


class _Sync(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor
):
    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy

    def intercept_unary_unary(
        self,
        continuation: "Callable[[grpc.ClientCallDetails, _Req], _CallFuture[_Res]]",
        client_call_details: grpc.ClientCallDetails,
        request: _Req,
    ) -> "_CallFuture[_Res]":
        prepared = self._policy.prepare(request)
        attempts = self._policy.attempts(client_call_details.timeout)
        while True:
            _raise_if_closed(self._policy)
            call = continuation(_SyncDetails(self._policy, client_call_details, attempts.timeout()), prepared)
            try:
                call.result()
            except grpc.RpcError as cause:
                error = _sync_error(self._policy, cause)
                wait_seconds = None if isinstance(error, ClientClosed) else attempts.wait_seconds(error)
                if wait_seconds is None:
                    raise error from cause
                self._policy.wait(wait_seconds)
            except ValueError:
                _raise_if_closed(self._policy)
                raise
            else:
                return call

    def intercept_unary_stream(
        self,
        continuation: "Callable[[grpc.ClientCallDetails, _Req], _CallIterator[_Res]]",
        client_call_details: grpc.ClientCallDetails,
        request: _Req,
    ) -> "_CallIterator[_Res]":
        _raise_if_closed(self._policy)
        details = _SyncDetails(self._policy, client_call_details, client_call_details.timeout)
        return cast("_CallIterator[_Res]", _SyncStream(self._policy, continuation(details, request)))

    def intercept_stream_stream(
        self,
        continuation: "Callable[[grpc.ClientCallDetails, Iterator[_Req]], _CallIterator[_Res]]",
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[_Req],
    ) -> "_CallIterator[_Res]":
        _raise_if_closed(self._policy)
        details = _SyncDetails(self._policy, client_call_details, client_call_details.timeout)
        return cast("_CallIterator[_Res]", _SyncStream(self._policy, continuation(details, request_iterator)))


def _sync_error(policy: CallPolicy, cause: grpc.RpcError) -> RoomtapeError:
    error = from_rpc_error(cause)
    return ClientClosed() if isinstance(error, Cancelled) and policy.is_closed() else error


def _raise_if_closed(policy: CallPolicy) -> None:
    """A call on a channel that was closed fails with no error of gRPC's; a stream may end the whole process."""
    if policy.is_closed():
        raise ClientClosed from None


class _SyncStream(Generic[_Res]):
    """A response stream whose errors are typed; all else is the call's own."""

    def __init__(self, policy: CallPolicy, call: "_CallIterator[_Res]") -> None:
        self._policy = policy
        self._call = call

    def __iter__(self) -> Iterator[_Res]:
        return self

    def __next__(self) -> _Res:
        try:
            return next(self._call)
        except grpc.RpcError as cause:
            raise _sync_error(self._policy, cause) from cause
        except ValueError:
            _raise_if_closed(self._policy)
            raise

    def __getattr__(self, name: str) -> object:
        return getattr(self._call, name)
