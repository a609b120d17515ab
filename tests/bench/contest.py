"""CPU of contestants who do the same work, measured in turns, so that what else the machine does hits all alike."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Contestant", "contest"]

_ROUNDS = 2


class Contestant(Protocol):
    """Somebody who records."""

    @property
    def name(self) -> str:
        """What it is, for the table."""
        ...

    @property
    def group(self) -> str:
        """Of contestants of one group, such as two builds of one program, only the fastest counts."""
        ...

    def turn(self) -> float:
        """Records in real time for a while; returns the percentage of a core that one recording takes."""
        ...


def contest(contestants: Sequence[Contestant]) -> dict[str, tuple[str, float]]:
    """For each group the name of its fastest and its percentage of a core, the mean of all turns.

    After the first round only the fastest of each group goes on.
    """
    turns = {contestant.name: [contestant.turn()] for contestant in contestants}
    fastest: dict[str, Contestant] = {}
    for contestant in contestants:
        best = fastest.setdefault(contestant.group, contestant)
        if turns[contestant.name][0] < turns[best.name][0]:
            fastest[contestant.group] = contestant
    for _ in range(_ROUNDS - 1):
        for contestant in fastest.values():
            turns[contestant.name].append(contestant.turn())
    return {
        group: (contestant.name, sum(turns[contestant.name]) / len(turns[contestant.name]))
        for group, contestant in fastest.items()
    }
