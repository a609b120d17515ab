"""How many Opus publishers a core holds at batches of 100 ms.

The node's CPU is measured with 600 of them, in rooms of 5 that share a connection and that nobody records, and taken
to grow in proportion: what a recording costs on top is in the other rows.
"""

import time
from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.crowd import publishing
from tests.bench.figures import Figure
from tests.bench.load import Publisher
from tests.bench.processes import cpu_seconds
from tests.bench.service import Service

__all__ = ["measure"]

_NAME = "publishers_per_core"
_GOAL = 1000
_ROOMS = 120
_PEOPLE = 5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    people = bench.material.crowd(_PEOPLE, talking=_PEOPLE)
    with Service(bench.folder / _NAME) as service:
        publishers = [
            Publisher(room_id, f"user-{index}", str(clip.path))
            for room_id in [service.new_room() for _ in range(_ROOMS)]
            for index, clip in enumerate(people)
        ]
        with publishing(service.target, publishers, lambda: None):
            pids = [service.node_pid]
            cpu_before, started = cpu_seconds(pids), time.monotonic()
            time.sleep(bench.window_seconds)
            share = (cpu_seconds(pids) - cpu_before) / (time.monotonic() - started)
    return [
        Figure(
            name=_NAME,
            ours=len(publishers) / share,
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="publishers per core",
            lower_is_better=False,
        )
    ]
