"""Bytes a second into a bucket: large files that wait on the spool, against boto3's s3transfer on the same server."""

import statistics
from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.bucket import uploaders
from tests.bench.figures import Figure

__all__ = ["measure"]

_NAME = "upload_throughput"
_GOAL = 0.9
_FILES = 4
_FILE_MIB = 64
_ROUNDS = 5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    speeds: dict[str, list[float]] = {"ours": [], "boto3": []}
    with uploaders(bench.folder / _NAME, *speeds) as contestants:
        for uploader in contestants:
            uploader.put(1, _FILE_MIB)
        for _ in range(_ROUNDS):
            for uploader, found in zip(contestants, speeds.values(), strict=True):
                found.append(_FILES * _FILE_MIB / uploader.put(_FILES, _FILE_MIB)["seconds"])
    return [
        Figure(
            name=_NAME,
            ours=statistics.median(speeds["ours"]),
            peer=statistics.median(speeds["boto3"]),
            peer_name="boto3's s3transfer",
            goal=_GOAL,
            unit="MiB/s",
            lower_is_better=False,
        )
    ]
