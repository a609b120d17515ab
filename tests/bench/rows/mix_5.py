"""Rooms of 5 who all talk, each mixed into one MP3."""

from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.mixing import measure_mix

__all__ = ["measure"]

_NAME = "mix_5"
_GOAL = 0.45
_PEOPLE = 5
_TALKING = 5
_ROOMS = 12


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    people = bench.material.crowd(_PEOPLE, talking=_TALKING)
    return measure_mix(bench, _NAME, people, rooms=_ROOMS, goal=_GOAL)
