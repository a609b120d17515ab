"""How fast an application's segments go to its store: one lane for each application.

1. A healthy lane has a few uploads at a time.
2. When an attempt fails, the lane waits, then tries one segment; the first that goes through opens it again.
   So a store that is down costs one attempt a wait and not one for each segment, and holds up nobody else.
3. Waits are random (full jitter) up to a bound that doubles, for ever: 0.5 s to 60 s; 30 s to 300 s where it
   takes somebody's hand.
"""

import random
from dataclasses import dataclass, field

from roomtape_service.clock import NANOSECONDS
from roomtape_service.storage.store import SourceDamaged, StoreError, StoreRefused

__all__ = ["Lane", "wait_seconds"]

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_FIRST_SLOW_WAIT_SECONDS = 30.0
_LONGEST_SLOW_WAIT_SECONDS = 300.0

_HEALTHY_UPLOADS = 4
_HEALTHY_PARTS = 4

_WARNING_INTERVAL_NS = 3600 * NANOSECONDS
"""A store that goes on failing is warned of again after this long."""


def wait_seconds(error: StoreError, failures: int, randomness: random.Random) -> float:
    """How long to wait after the `failures`-th failure in a row (1 for the first)."""
    doublings = min(failures - 1, 16)
    if isinstance(error, StoreRefused | SourceDamaged):
        longest = min(_FIRST_SLOW_WAIT_SECONDS * 2 ** (doublings + 1), _LONGEST_SLOW_WAIT_SECONDS)
        return randomness.uniform(_FIRST_SLOW_WAIT_SECONDS, longest)
    return randomness.uniform(0, min(_FIRST_WAIT_SECONDS * 2**doublings, _LONGEST_WAIT_SECONDS))


@dataclass(slots=True, eq=False)
class Lane:
    """The state of one application's uploads; times in UTC nanoseconds."""

    in_hand: set[str] = field(default_factory=set)
    """Ids of the files that are being uploaded."""
    trouble: StoreError | None = None
    """What the newest attempt failed with; None while the store takes what it gets."""
    failures: int = 0
    """Failed attempts in a row."""
    next_ns: int = 0
    """Not before this is anything tried."""
    revision: int = 0
    """Of the application when the newest attempt was made: with new settings, trouble may be over."""
    warned_code: str = ""
    warned_ns: int = 0

    @property
    def parallel_parts(self) -> int:
        """Parts that an upload may send at once; a store in trouble gets to hold little memory."""
        return 1 if self.trouble else _HEALTHY_PARTS

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting the lane."""
        return not self.in_hand and self.trouble is None

    def free(self, now_ns: int) -> int:
        """How many uploads may start now."""
        if self.trouble is None:
            return max(0, _HEALTHY_UPLOADS - len(self.in_hand))
        return 1 if now_ns >= self.next_ns and not self.in_hand else 0

    def succeeded(self) -> None:
        """The store took a segment."""
        self.trouble = None
        self.failures = 0
        self.next_ns = 0
        self.warned_code = ""

    def failed(self, error: StoreError, now_ns: int, randomness: random.Random) -> int:
        """The store did not take a segment. Returns when to try again."""
        self.trouble = error
        self.failures += 1
        wait_ns = round(wait_seconds(error, self.failures, randomness) * NANOSECONDS)
        self.next_ns = now_ns + wait_ns
        return self.next_ns

    def should_warn(self, error: StoreError, now_ns: int) -> bool:
        """Whether to tell of it: when trouble begins, when it changes, and now and then while it lasts."""
        if error.code == self.warned_code and now_ns - self.warned_ns < _WARNING_INTERVAL_NS:
            return False
        self.warned_code = error.code
        self.warned_ns = now_ns
        return True
