"""What goes wrong, when: all out of one seed, so that a run can be had again."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from roomtape_service.failpoints import AFTER, COMMITS, FAILPOINTS

__all__ = ["EVERY_FAILPOINT", "Kill", "Step", "Trouble", "schedule"]


T = TypeVar("T")


class Kill(StrEnum):
    """Who dies by SIGKILL."""

    NODE = "node"
    WORKER = "worker"
    SUPERVISOR = "supervisor"
    """Alone: its children see that and end by themselves."""
    ALL = "all"
    """Every process of the service at once."""
    STORE = "store"
    """It comes back on the same data."""
    FAILPOINT = "failpoint"
    """Whoever comes to a named place first."""


class Trouble(StrEnum):
    """What else is wrong from before the kill until recording goes on after it."""

    RESETS = "all connections to the store are reset"
    RESET_PART = "connections are reset in the middle of what they send"
    HALF_CLOSE = "the store's end of a connection closes in the middle of a body"
    STALL = "nothing moves on a connection any more"
    LOST_COMPLETE = "the answer to CompleteMultipartUpload is lost"
    LOST_ANSWER = "answers to what was sent are lost"
    SLOW_DOWN = "503 SlowDown"
    UNAVAILABLE = "503 ServiceUnavailable"
    TOO_MANY = "429 TooManyRequests"
    LATENCY = "every answer is late"
    THIN = "there is little bandwidth"
    REFUSED = "connections are refused"
    SILENCE = "connections are taken and never answered"
    WRONG_KEY = "the application's key is wrong"
    CLOCK_AHEAD = "the machine's clock is an hour ahead for the processes that start"
    CLOCK_BEHIND = "the machine's clock is an hour behind for the processes that start"


_CLOCK = (Trouble.CLOCK_AHEAD, Trouble.CLOCK_BEHIND)

_KILLS = (
    *(Kill.NODE, Kill.NODE, Kill.WORKER, Kill.STORE, Kill.SUPERVISOR, Kill.ALL),
    *(Kill.FAILPOINT, Kill.FAILPOINT, Kill.FAILPOINT, Kill.FAILPOINT),
)

_COMMITS = [f"commit:{name}{end}" for name in COMMITS for end in ("", AFTER)]

EVERY_FAILPOINT: Sequence[str] = [*FAILPOINTS, *_COMMITS]
"""All names that can be armed."""

_LATEST_HIT = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One kill, with what else is wrong meanwhile."""

    kill: Kill
    trouble: Trouble | None
    pause_seconds: float
    """From the trouble to the kill."""
    failpoint: str = ""
    at: int = 1
    """At which hit of the failpoint."""

    def __str__(self) -> str:
        what = f"{self.failpoint} (hit {self.at})" if self.failpoint else self.kill.value
        return f"kill {what} after {self.pause_seconds:.2f} s; {self.trouble or 'nothing else'}"


def schedule(
    kills: int, seed: int, *, has_server: bool, failpoints: Sequence[str] = EVERY_FAILPOINT
) -> list[Step]:
    """So many steps. Kinds and troubles are dealt like cards: none comes again before all others came."""
    dice = random.Random(seed)
    kinds = _dealt(_KILLS, dice)
    troubles = _dealt(tuple(Trouble) if has_server else (*_CLOCK, *(None,) * 4), dice)
    names = _dealt(tuple(failpoints), dice)
    steps = []
    for _ in range(kills):
        kind = next(kinds)
        if kind is Kill.STORE and not has_server:
            kind = Kill.WORKER
        name = next(names) if kind is Kill.FAILPOINT else ""
        steps.append(Step(kind, next(troubles), dice.uniform(0, 0.6), name, dice.randint(1, _LATEST_HIT)))
    return steps


def _dealt(cards: Sequence[T], dice: random.Random) -> Iterator[T]:
    while True:
        deck = list(cards)
        dice.shuffle(deck)
        yield from deck
