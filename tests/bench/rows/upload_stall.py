"""How late a node's event loop is while 1 GiB goes into a bucket: the 99th percentile of a timer of 2 ms."""

from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.bucket import uploaders
from tests.bench.figures import Figure

__all__ = ["measure"]

_NAME = "upload_stall"
_GOAL_MS = 20.0
_FILES = 16
_FILE_MIB = 64


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    with uploaders(bench.folder / _NAME, "ours") as (ours,):
        facts = ours.put(_FILES, _FILE_MIB, is_timed=True)
    return [
        Figure(
            name=_NAME,
            ours=facts["p99_ms"],
            peer=None,
            peer_name=None,
            goal=_GOAL_MS,
            unit="ms late (p99)",
            lower_is_better=True,
        )
    ]
