"""Where a publisher's clock stands against the server's."""

from roomtape_service.clock import NANOSECONDS

__all__ = ["PublisherClock"]

_WINDOW_NS = 5 * NANOSECONDS
"""Delays vary, clocks drift: the smallest delay of so long is near the truth of both (as workers have it)."""


class PublisherClock:
    """Maps times of sending to the server's clock by the smallest delay that was seen lately."""

    def __init__(self) -> None:
        self._window_start_ns = 0
        self._delay_ns: int | None = None
        self._earlier_delay_ns: int | None = None

    def observe(self, sent_ns: int, arrival_ns: int) -> None:
        """Something that was sent at `sent_ns` by the publisher's clock arrived at `arrival_ns` by ours."""
        delay_ns = arrival_ns - sent_ns
        if self._delay_ns is None or arrival_ns - self._window_start_ns > _WINDOW_NS:
            self._window_start_ns = arrival_ns
            self._earlier_delay_ns, self._delay_ns = self._delay_ns, delay_ns
        elif delay_ns < self._delay_ns:
            self._delay_ns = delay_ns

    def server_ns(self, sent_ns: int, arrival_ns: int) -> int:
        """When it was, by the server's clock, what a message says that arrived just now: not later than that."""
        known = [delay for delay in (self._delay_ns, self._earlier_delay_ns) if delay is not None]
        return min(arrival_ns, sent_ns + min(known)) if known else arrival_ns
