"""Opus from gRPC to an MP3 file for each user."""

from collections.abc import Sequence

from roomtape.v1 import media_pb2
from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.singles import measure_singles

__all__ = ["measure"]

_NAME = "single_mp3"
_GOAL = 0.5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    return measure_singles(
        bench, _NAME, media_pb2.CONTAINER_MP3, lambda build: build.single, rooms=10, suffix=".mp3", goal=_GOAL
    )
