"""Events of history that one watcher gets each second, from the oldest on; most are read from the database."""

import asyncio
import statistics
from collections.abc import Sequence

from roomtape.v1 import event_pb2
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.history import write_history
from tests.bench.service import APP, Service

__all__ = ["measure"]

_NAME = "replay"
_GOAL = 20_000
_METHOD = "/roomtape.v1.WatchService/WatchEvents"
_EVENTS = 50_000
_ROUNDS = 5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    service = Service(bench.folder / _NAME)
    asyncio.run(write_history(service.database_file, APP, _EVENTS))
    request = event_pb2.WatchEventsRequest(app_id=APP, origin=event_pb2.WATCH_ORIGIN_OLDEST)
    # The first message is a bookmark.
    messages = str(_EVENTS + 1)
    with service, Child("tests.bench.replayer", service.target, _METHOD, messages) as watcher:
        watcher.tell(request.SerializeToString().hex())
        seconds = []
        for _ in range(_ROUNDS):
            watcher.tell("go")
            seconds.append(watcher.number("seconds"))
    return [
        Figure(
            name=_NAME,
            ours=_EVENTS / statistics.median(seconds),
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="events per second",
            lower_is_better=False,
        )
    ]
