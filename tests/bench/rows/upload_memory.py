"""The most memory that a node takes for uploads while 1 GiB goes into a bucket, above what it had before the first."""

from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.bucket import uploaders
from tests.bench.figures import Figure

__all__ = ["measure"]

_NAME = "upload_memory"
_GOAL_MIB = 150.0
_FILES = 16
_FILE_MIB = 64


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    with uploaders(bench.folder / _NAME, "ours") as (ours,):
        facts = ours.put(_FILES, _FILE_MIB)
    return [
        Figure(
            name=_NAME,
            ours=facts["memory_mib"],
            peer=None,
            peer_name=None,
            goal=_GOAL_MIB,
            unit="MiB above the start",
            lower_is_better=True,
        )
    ]
