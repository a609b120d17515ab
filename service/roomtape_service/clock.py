"""Time as the service uses it: UTC nanoseconds that never step backwards."""

import time
from typing import Protocol

from roomtape_service import failpoints

__all__ = ["NANOSECONDS", "Clock", "ManualClock", "SteadyClock", "SystemClock"]

NANOSECONDS = 1_000_000_000


class Clock(Protocol):
    """Where components get the time from."""

    def now_ns(self) -> int:
        """UTC in nanoseconds since 1970; never goes backwards within a process."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point; for spans."""
        ...


class SystemClock:
    """The machine's monotonic clock, anchored once to its UTC clock.

    A step of the UTC clock does not move a room's time; a new process takes a new anchor.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns() + failpoints.overrides().clock_offset_ns

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._offset_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class SteadyClock:
    """Another clock, put forward or back so that it goes on from where a process before it was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved_ns = 0

    def now_ns(self) -> int:
        return self._clock.now_ns() + self._moved_ns

    def monotonic_ns(self) -> int:
        return self._clock.monotonic_ns()

    def go_on(self, reached_ns: int, kept_ns: int | None) -> int:
        """It was `reached_ns` already, so it is that now at least; it is `kept_ns`, if that is known.

        Returns by how much this moved it.
        """
        moved_ns = self._moved_ns
        if kept_ns is not None:
            self._moved_ns += kept_ns - self.now_ns()
        self._moved_ns += max(0, reached_ns - self.now_ns())
        return self._moved_ns - moved_ns


class ManualClock:
    """A clock that stands still until it is told to move; for tests of rules that take hours."""

    def __init__(self, now_ns: int = 1_700_000_000 * NANOSECONDS) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Moves the clock forward by `seconds`."""
        self._now_ns += round(seconds * NANOSECONDS)
