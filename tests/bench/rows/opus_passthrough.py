"""Opus from gRPC to an Ogg file for each user, packets untouched."""

from collections.abc import Sequence

from roomtape.v1 import media_pb2
from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.singles import measure_singles

__all__ = ["measure"]

_NAME = "opus_passthrough"
_GOAL = 0.5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    return measure_singles(
        bench, _NAME, media_pb2.CONTAINER_OGG, lambda build: build.copy, rooms=20, suffix=".ogg", goal=_GOAL
    )
