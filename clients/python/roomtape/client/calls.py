"""What every call gets on its way: who calls, a request id, a deadline, another try.

Both kinds of interceptors, asyncio's and those of threads, ask one `CallPolicy`.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from google.protobuf.message import Message

from roomtape.client.backoff import RETRYABLE, Backoff, RetrySettings
from roomtape.client.errors import RoomtapeError

__all__ = ["DEFAULT_TIMEOUT_SECONDS", "Attempts", "CallPolicy"]

_Request = TypeVar("_Request")


DEFAULT_TIMEOUT_SECONDS = 30.0


class _Identified(Protocol):
    request_id: str


def _new_request_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The rules; the same for all calls of a client."""

    metadata: tuple[tuple[str, str], ...] = ()
    """Goes with every call, except under keys that the caller set."""

    timeout_seconds: float | None = None
    """The deadline of unary calls that bring none, all tries together."""

    retry: RetrySettings = field(default_factory=RetrySettings)
    """How often, and after which waits."""

    is_closed: Callable[[], bool] = lambda: False
    """Whether the client was closed."""

    new_request_id: Callable[[], str] = _new_request_id
    uniform: Callable[[float, float], float] = random.uniform
    monotonic: Callable[[], float] = time.monotonic

    wait: Callable[[float], object] = time.sleep
    """Lets seconds pass between two tries of a thread; a client that is closed meanwhile need not wait on."""

    def prepare(self, request: _Request) -> _Request:
        """The request, safe to be sent twice.

        A request that changes something has a `request_id`, under which the server acts once and answers
        alike; an empty one is filled in a copy. A request without that field changes nothing.
        """
        if not isinstance(request, Message) or "request_id" not in request.DESCRIPTOR.fields_by_name:
            return request
        if cast(_Identified, request).request_id:
            return request
        prepared = type(request)()
        prepared.CopyFrom(request)
        cast(_Identified, prepared).request_id = self.new_request_id()
        return prepared

    def add_metadata(
        self, metadata: Iterable[tuple[str, str | bytes]] | None
    ) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller gave, and what is ours."""
        given = tuple(metadata or ())
        keys = {key for key, _ in given}
        return (*given, *(item for item in self.metadata if item[0] not in keys))

    def attempts(self, timeout: float | None) -> "Attempts":
        """The tries of one call whose caller gave `timeout` seconds."""
        return Attempts(self, self.timeout_seconds if timeout is None else timeout)


class Attempts:
    """The tries of one call, under one deadline."""

    def __init__(self, policy: CallPolicy, timeout: float | None) -> None:
        self._policy = policy
        self._deadline = None if timeout is None else policy.monotonic() + timeout
        self._backoff = Backoff(policy.retry, policy.uniform)
        self._left = policy.retry.attempts - 1

    def timeout(self) -> float | None:
        """Seconds that are left for the next try."""
        return None if self._deadline is None else max(0.0, self._deadline - self._policy.monotonic())

    def wait_seconds(self, error: RoomtapeError) -> float | None:
        """How long to wait before the next try; None when there is none and the error is the answer."""
        if error.code not in RETRYABLE or self._left <= 0:
            return None
        self._left -= 1
        seconds = self._backoff.next_seconds(error.retry_after)
        left = self.timeout()
        return seconds if left is None or seconds < left else None
