"""Time as the publisher uses it, so that tests can bring their own."""

import asyncio
import time
from typing import Protocol

__all__ = ["NANOSECONDS", "Clock", "SystemClock"]

NANOSECONDS = 1_000_000_000


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """UTC in nanoseconds since 1970; never goes backwards."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point; for spans."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns when about `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The machine's monotonic clock, anchored once to its UTC clock.

    A step of the UTC clock moves no capture time.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._offset_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
