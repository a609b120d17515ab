"""How fast an application's segments go to its stores: a lane for each store.

1. A healthy lane has a few uploads at a time.
2. When an attempt fails, the lane waits, then tries one segment; the first that goes through opens it again.
   So a store that is down costs one attempt a wait and not one for each segment, and holds up nobody else.
3. Waits are random (full jitter) up to a bound that doubles, for ever: 0.5 s to 60 s; 30 s to 300 s where it
   takes somebody's hand.
4. Where the first store took nothing for as long as the settings say, segments go by the lane of the secondary one,
   and the first store is tried with one of them after each wait, until it takes something.
"""

import random
from dataclasses import dataclass, field

from roomtape_service.clock import NANOSECONDS
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import SourceDamaged, StoreError, StoreRefused

__all__ = ["Lane", "Way", "wait_seconds"]

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_FIRST_SLOW_WAIT_SECONDS = 30.0
_LONGEST_SLOW_WAIT_SECONDS = 300.0

_HEALTHY_UPLOADS = 4
_HEALTHY_PARTS = 4

# Of the memory for all; who hangs keeps no more of it from the others.
_LANE_BYTES = 4 * PART_BYTES
# One slot of a lane is for files that are complete.
_GROWING_UPLOADS = _HEALTHY_UPLOADS - 1

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
    """The state of an application's uploads to one store; times in UTC nanoseconds."""

    store: str = ""
    """Identity of the store; empty before the first attempt."""
    in_hand: set[str] = field(default_factory=set)
    """Ids of the files that are being uploaded."""
    trouble: StoreError | None = None
    """What the newest attempt failed with; None while the store takes what it gets."""
    failures: int = 0
    """Failed attempts in a row."""
    next_ns: int = 0
    """Not before this is anything tried."""
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(_LANE_BYTES))
    """What its uploads may hold of the memory for all."""
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

    def free_for_growing(self, now_ns: int) -> int:
        """How many uploads of files that grow may start now; files that are complete come first."""
        free = self.free(now_ns)
        return min(free, max(0, _GROWING_UPLOADS - len(self.in_hand))) if self.trouble is None else free

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


@dataclass(slots=True, eq=False)
class Way:
    """How one application's segments go; times in UTC nanoseconds."""

    first: Lane = field(default_factory=Lane)
    second: Lane = field(default_factory=Lane)
    failing_ns: int | None = None
    """Since when the first store takes nothing; it is in the database, too."""
    uses_second: bool = False
    """Whether segments go to the secondary store."""
    revision: int = 0
    """Of the application when its stores were last asked for: with new settings, trouble may be over."""
    growing: dict[str, int] = field(default_factory=dict)
    """Files of which parts can be sent while they grow: how many bytes are there, by the file's id."""

    def leads_to(self, store: str) -> None:
        """The first store is this one; what was known of another is over."""
        if self.first.store and self.first.store != store:
            self.failing_ns = None
            self.uses_second = False
        self.first.store = store

    @property
    def in_hand(self) -> set[str]:
        """Ids of the files that are being uploaded."""
        return self.first.in_hand | self.second.in_hand

    @property
    def lane(self) -> Lane:
        """The lane by which segments go."""
        return self.second if self.uses_second else self.first

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting the way."""
        return self.first.is_idle and self.second.is_idle and not self.growing and self.failing_ns is None
