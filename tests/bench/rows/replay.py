"""Events of history that one watcher gets each second, from the oldest on; most are read from the database."""

import asyncio
import statistics
from collections.abc import Sequence

from roomtape.v1 import event_pb2
from tests.bench import bare
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.history import write_history
from tests.bench.service import APP, Service

__all__ = ["measure"]

_NAME = "replay"
_GOAL = 20_000
_RATIO_GOAL = 0.6
_METHOD = "/roomtape.v1.WatchService/WatchEvents"
_EVENTS = 50_000
# About what those of the history have.
_MESSAGE_BYTES = 140
_ROUNDS = 5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    service = Service(bench.folder / _NAME)
    asyncio.run(write_history(service.database_file, APP, _EVENTS))
    request = event_pb2.WatchEventsRequest(app_id=APP, origin=event_pb2.WATCH_ORIGIN_OLDEST)
    # The first message is a bookmark.
    messages = _EVENTS + 1
    ours, peer = [], []
    with service, Child("tests.bench.bare") as bare_server:
        target = f"127.0.0.1:{bare_server.number('port'):.0f}"
        with (
            Child("tests.bench.replayer", service.target, _METHOD, str(messages)) as our_watcher,
            Child("tests.bench.replayer", target, bare.REPLAY, str(messages)) as bare_watcher,
        ):
            our_watcher.tell(request.SerializeToString().hex())
            bare_watcher.tell(f"{messages} {_MESSAGE_BYTES}".encode().hex())
            for _ in range(_ROUNDS):
                ours.append(_events_per_second(our_watcher))
                peer.append(_events_per_second(bare_watcher))
    rate = statistics.median(ours)
    return [
        Figure(
            name=_NAME,
            ours=rate,
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="events per second",
            lower_is_better=False,
        ),
        Figure(
            name=f"{_NAME}_ratio",
            ours=rate,
            peer=statistics.median(peer),
            peer_name="bare grpc.aio stream",
            goal=_RATIO_GOAL,
            unit="events per second",
            lower_is_better=False,
        ),
    ]


def _events_per_second(watcher: Child) -> float:
    watcher.tell("go")
    return _EVENTS / watcher.number("seconds")
