"""When a delivery that failed is tried again, and when it is given up.

| schedule | an attempt may take | tried again | given up | taken by |
|---|---|---|---|---|
| ours | 10 s | after a random wait up to a bound that doubles from 1 s to 10 min | after 24 h | any 2xx |
| TRTC | 5 s | at once, then every 10 s | when it is over a minute old | 200 |
| TRTC classic | 20 s | every minute | after 12 retries | 200 |
| Volcengine | 5 s | after 1 s | after 3 sends | 200 |

Every delivery is tried at least once, however long it waited for the one before it. The vendors' rows are those of
their documents (TRTC event callbacks; live streaming event notifications; Volcengine RTC callbacks). Volcengine does
not say how long it waits, so that second is ours; GME does not publish any of it, so it has TRTC's row.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from roomtape.v1 import webhook_pb2
from roomtape_service.clock import NANOSECONDS

__all__ = ["OURS", "TRTC", "TRTC_CLASSIC", "VOLCENGINE", "Schedule", "schedule_of"]

_DOUBLINGS: Final = 16
_OK: Final = 200
_AFTER_OK: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of the table."""

    timeout_seconds: float
    """How long an attempt may take, from the look-up of the name to the answer."""
    first_wait_seconds: float
    """After the first attempt."""
    longest_wait_seconds: float
    """After later ones, or, where waits are random, what their bound grows to."""
    age_seconds: float | None = None
    """How old it gets."""
    sends: int | None = None
    """How often it is tried."""
    is_ours: bool = False
    """Whether waits are random, Retry-After is heard, and any 2xx is taken."""

    def takes(self, status: int) -> bool:
        """Whether an answer of this HTTP status means that the receiver has it."""
        return status == _OK or (self.is_ours and _OK <= status < _AFTER_OK)

    def next_ns(
        self,
        attempts: int,
        since_ns: int,
        now_ns: int,
        randomness: random.Random,
        *,
        rest_seconds: float = 0.0,
    ) -> int | None:
        """When to try again after the `attempts`-th attempt (1 for the first) failed; None: it is given up.

        `since_ns` is when it was queued, in UTC nanoseconds as all times. `rest_seconds` is what the receiver asked
        for; it gets no longer rest than the longest wait.
        """
        if self.sends is not None and attempts >= self.sends:
            return None
        if not self.is_ours:
            wait = self.first_wait_seconds if attempts == 1 else self.longest_wait_seconds
            return self._in_time(since_ns, now_ns + round(wait * NANOSECONDS))
        bound: float = self.first_wait_seconds * 2 ** min(attempts - 1, _DOUBLINGS)
        wait = randomness.uniform(0.0, min(bound, self.longest_wait_seconds))
        wait = max(wait, min(rest_seconds, self.longest_wait_seconds))
        next_ns = self._in_time(since_ns, now_ns + round(wait * NANOSECONDS))
        if next_ns is None and self._in_time(since_ns, now_ns + 1) is not None:
            # The last attempt comes with the last moment, however the dice fall.
            return self._end_ns(since_ns)
        return next_ns

    def _in_time(self, since_ns: int, next_ns: int) -> int | None:
        return None if self.age_seconds is not None and next_ns > self._end_ns(since_ns) else next_ns

    def _end_ns(self, since_ns: int) -> int:
        return since_ns + round((self.age_seconds or 0.0) * NANOSECONDS)


OURS: Final = Schedule(
    timeout_seconds=10.0,
    first_wait_seconds=1.0,
    longest_wait_seconds=600.0,
    age_seconds=24 * 3600.0,
    is_ours=True,
)
TRTC: Final = Schedule(
    timeout_seconds=5.0, first_wait_seconds=0.0, longest_wait_seconds=10.0, age_seconds=60.0
)
TRTC_CLASSIC: Final = Schedule(
    timeout_seconds=20.0, first_wait_seconds=60.0, longest_wait_seconds=60.0, sends=13
)
VOLCENGINE: Final = Schedule(timeout_seconds=5.0, first_wait_seconds=1.0, longest_wait_seconds=1.0, sends=3)

_OF_VENDORS: Final[Mapping[int, Schedule]] = {
    webhook_pb2.WEBHOOK_FORMAT_GME: TRTC,
    webhook_pb2.WEBHOOK_FORMAT_TRTC: TRTC,
    webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC: TRTC_CLASSIC,
    webhook_pb2.WEBHOOK_FORMAT_VOLC: VOLCENGINE,
}


def schedule_of(retry: int, format: int) -> Schedule:
    """The row for a WebhookRetry and a WebhookFormat: ours, unless the vendor's is asked for and there is one."""
    if retry != webhook_pb2.WEBHOOK_RETRY_VENDOR:
        return OURS
    return _OF_VENDORS.get(format, OURS)
