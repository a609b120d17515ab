"""The streams of a client that run."""

import weakref
from typing import TypeVar

from grpc import aio

from roomtape.client.errors import ClientClosed

__all__ = ["RunningStreams"]

_Call = TypeVar("_Call", bound=aio.Call)


class RunningStreams:
    """Knows them, so that closing the client ends them: gRPC leaves alone what runs on a channel that is closed."""

    def __init__(self) -> None:
        self._calls: weakref.WeakSet[aio.Call] = weakref.WeakSet()
        self._closed = False

    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed

    def check(self) -> None:
        """Raises ClientClosed when the client was closed."""
        if self._closed:
            raise ClientClosed

    def add(self, call: _Call) -> _Call:
        """The call, remembered for as long as somebody has it."""
        self._calls.add(call)
        return call

    def close(self) -> None:
        """Ends all of them."""
        self._closed = True
        for call in tuple(self._calls):
            call.cancel()
