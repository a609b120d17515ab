"""Calls by their descriptors: a request goes out as it is, with no retry and no request id of a library's."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from google.protobuf.message import Message
from grpc import aio

from tests.integration.bad_input.contract import message_of, method
from tests.integration.bad_input.refusals import Refused, read_refusal

__all__ = ["Metadata", "call", "refused", "request_of"]

Metadata = Sequence[tuple[str, str]]

_TIMEOUT_SECONDS = 10.0
_TRIES = 10


async def call(channel: aio.Channel, rpc: str, request: Message, metadata: Metadata = ()) -> Message:
    """The answer to a request, or the first of a stream. Raises AioRpcError."""
    described = method(rpc)
    path = f"/{described.containing_service.full_name}/{described.name}"
    encode = type(request).SerializeToString
    decode = message_of(described.output_type.full_name).FromString
    if not described.server_streaming:
        unary: aio.UnaryUnaryMultiCallable[Message, Message]
        unary = channel.unary_unary(path, request_serializer=encode, response_deserializer=decode)
        return await unary(request, metadata=tuple(metadata), timeout=_TIMEOUT_SECONDS)
    if described.client_streaming:
        both: aio.StreamStreamMultiCallable[Message, Message]
        both = channel.stream_stream(path, request_serializer=encode, response_deserializer=decode)
        return await _first(both(_only(request), metadata=tuple(metadata), timeout=_TIMEOUT_SECONDS))
    stream: aio.UnaryStreamMultiCallable[Message, Message]
    stream = channel.unary_stream(path, request_serializer=encode, response_deserializer=decode)
    return await _first(stream(request, metadata=tuple(metadata), timeout=_TIMEOUT_SECONDS))


async def refused(channel: aio.Channel, rpc: str, request: Message, metadata: Metadata = ()) -> Refused:
    """The refusal of a request. Raises AssertionError when it is answered."""
    for _ in range(_TRIES):
        with pytest.raises(aio.AioRpcError) as caught:
            await call(channel, rpc, request, metadata)
        if not _is_of_the_library(caught.value):
            return read_refusal(caught.value)
    raise AssertionError(f"{rpc}: gRPC's client lost the refusal {_TRIES} times")


def _is_of_the_library(error: aio.AioRpcError) -> bool:
    """Whether gRPC's own client made the error up: it does where its write comes after the server's last word."""
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()


def request_of(rpc: str, app_id: str) -> tuple[Message, str]:
    """A request with nothing but an application, and the path of that field; no path where it has none."""
    request = message_of(method(rpc).input_type.full_name)()
    for holders in ((), ("application",), ("webhook",), ("open",)):
        target: object = request
        for holder in holders:
            target = getattr(target, holder, None)
        if target is not None and hasattr(target, "app_id"):
            setattr(target, "app_id", app_id)  # noqa: B010
            return request, ".".join((*holders, "app_id"))
    return request, ""


async def _only(request: Message) -> AsyncIterator[Message]:
    yield request


async def _first(
    running: "aio.UnaryStreamCall[Message, Message] | aio.StreamStreamCall[Message, Message]",
) -> Message:
    try:
        first = await running.read()
    finally:
        running.cancel()
    assert isinstance(first, Message)
    return first
