"""From a call that makes one event until 5,000 watchers have it, against a bare fan-out of a message of that size.

The watchers are in two other processes, over 8 TCP connections. Ours is durable before it is sent.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import grpc

from roomtape.v1 import event_pb2
from tests.bench import bare
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.service import APP, Service

__all__ = ["measure"]

_NAME = "fanout_5000"
_GOAL = 1.2
_METHOD = "/roomtape.v1.WatchService/WatchEvents"
_WATCHERS = 5000
_PROCESSES = 2
_ROUNDS = 12
_BOOKMARK_SECONDS = 300


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    request = event_pb2.WatchEventsRequest(app_id=APP, origin=event_pb2.WATCH_ORIGIN_NOW)
    request.bookmark_interval.FromSeconds(_BOOKMARK_SECONDS)
    ours, peer = [], []
    with Service(bench.folder / _NAME) as service, Child("tests.bench.bare") as fanout:
        target = f"127.0.0.1:{fanout.number('port'):.0f}"
        with (
            grpc.insecure_channel(target) as channel,
            _watching(service.target, _METHOD, request.SerializeToString()) as our_watchers,
            _watching(target, bare.WATCH, b"") as bare_watchers,
        ):
            tell: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(bare.TELL)
            message = b"\0" * _message_bytes(service)
            # The event of the look at a message's size has reached the watchers too.
            _wait(our_watchers)
            for _ in range(_ROUNDS):
                ours.append(_milliseconds(service.new_room, our_watchers))
                peer.append(_milliseconds(lambda: tell(message), bare_watchers))
    return [
        Figure(
            name=_NAME,
            ours=statistics.median(ours),
            peer=statistics.median(peer),
            peer_name="bare grpc.aio fan-out",
            goal=_GOAL,
            unit="ms until all have it",
            lower_is_better=True,
        )
    ]


@contextmanager
def _watching(target: str, method: str, request: bytes) -> Iterator[Sequence[Child]]:
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child("tests.bench.watchers", target, method, str(_WATCHERS // _PROCESSES)))
            for _ in range(_PROCESSES)
        ]
        for child in children:
            child.tell(request.hex())
        for child in children:
            child.hear()
        yield children


def _message_bytes(service: Service) -> int:
    with grpc.insecure_channel(service.target) as channel:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_METHOD)
        request = event_pb2.WatchEventsRequest(app_id=APP, origin=event_pb2.WATCH_ORIGIN_NOW)
        messages = watch(request.SerializeToString())
        next(messages)
        service.new_room()
        size = len(next(messages))
        messages.cancel()
        return size


def _milliseconds(tell: Callable[[], object], watchers: Sequence[Child]) -> float:
    started_ns = time.monotonic_ns()
    tell()
    return (_wait(watchers) - started_ns) / 1e6


def _wait(watchers: Sequence[Child]) -> float:
    return max(child.number("last_ns") for child in watchers)
