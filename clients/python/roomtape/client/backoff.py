"""When to try again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc

__all__ = ["RESUMABLE", "RETRYABLE", "Backoff", "RetrySettings"]

# A server under a storm of calls cancels those that it has no room for: that is UNAVAILABLE too.
RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

# A stream that broke: INTERNAL is what a reset of the HTTP/2 stream reads as.
RESUMABLE = RETRYABLE | {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL}

_GROWTH = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """How failed calls and broken streams are tried again."""

    attempts: int = 5
    """How often a unary call is tried altogether, 1 or more. Streams have limits of their own."""

    initial_seconds: float = 0.1
    """The longest first wait; the bound doubles with every failure."""

    max_seconds: float = 10.0
    """The longest wait there is."""


class Backoff:
    """Full jitter: each wait is drawn evenly from 0 to a bound that doubles.

    Callers who failed together so come back apart.
    """

    def __init__(
        self, settings: RetrySettings, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._settings = settings
        self._uniform = uniform
        self._failures = 0

    def next_seconds(self, retry_after: float | None = None) -> float:
        """How long to wait now; never less than what the server asked for, `retry_after`."""
        # The exponent is capped, or the power of a long outage overflows.
        bound = min(
            self._settings.max_seconds, self._settings.initial_seconds * _GROWTH ** min(self._failures, 32)
        )
        self._failures += 1
        return max(retry_after or 0.0, self._uniform(0.0, bound))

    def reset(self) -> None:
        """Something worked: begin small again."""
        self._failures = 0
