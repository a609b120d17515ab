"""What goes wrong, when: all out of one seed, so that a run can be had again."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from roomtape_service.failpoints import AFTER, COMMITS, FAILPOINTS

__all__ = ["EVERY_FAILPOINT", "FREQUENT", "Kill", "Step", "Trouble", "schedule"]


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

_SELDOM = (
    *(
        "events.",
        "library.",
        "manifest.attempt.ManifestAttempts._take_away",
        "storage.attempt.Attempts.send_settled",
    ),
    *(
        "storage.leftovers.Leftovers._give_up",
        "storage.leftovers.Leftovers.postpone",
        "storage.notices.Notices.fail",
        "storage.notices.Notices.switch",
    ),
    *("tasks.facts.Facts.warning", "tasks.modifying.Modifying.modify.before", "tasks.spool_guard."),
    *("tasks.stopping.Stopping.expire", "tasks.unended.Unended._tell"),
    *("disk.abort", "disk.delete", "joined.remove", "recovery.aside", "s3.delete", "segment.abandon"),
    "spool.keep_aside",
)
"""How names begin by which these runs hardly come. Other tests do, and kill at what belongs to the library."""

FREQUENT: Sequence[str] = [
    name for name in EVERY_FAILPOINT if not name.removeprefix("commit:").startswith(_SELDOM)
]
"""Where a kill is worth waiting for."""

_LATEST_HIT = 2


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


def schedule(kills: int, seed: int, *, has_server: bool, failpoints: Sequence[str] = FREQUENT) -> list[Step]:
    """So many steps. Kinds and troubles are dealt like cards: none comes again before all others came."""
    dice = random.Random(seed)
    kinds = _dealt(_KILLS, dice)
    troubles = _dealt(tuple(Trouble) if has_server else (*_CLOCK, *(None,) * 4), dice)
    other_stores = "disk." if has_server else "s3."
    names = _dealt(tuple(name for name in failpoints if not name.startswith(other_stores)), dice)
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
