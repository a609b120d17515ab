"""Memory that one more single recording to MP3 takes: of all our processes, 60 recordings against 10."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from roomtape.v1 import media_pb2, task_pb2
from tests.bench.bench import Bench
from tests.bench.crowd import publishing
from tests.bench.figures import Figure
from tests.bench.load import Publisher
from tests.bench.processes import memory_mib
from tests.bench.service import Service

__all__ = ["measure"]

_NAME = "memory_single"
_GOAL = 1.0
_PEOPLE = 5
_FEW_ROOMS = 2
_MORE_ROOMS = 10
# Buffers reach their usual size before it is looked at, several times, since what is held comes and goes.
_SETTLE_SECONDS = 4.0
_LOOKS = 10
_APART_SECONDS = 0.2


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    with Service(bench.folder / _NAME) as service, _recorded(bench, service, _FEW_ROOMS):
        few = _settled_mib(service)
        with _recorded(bench, service, _MORE_ROOMS):
            many = _settled_mib(service)
    return [
        Figure(
            name=_NAME,
            ours=(many - few) / (_MORE_ROOMS * _PEOPLE),
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="MiB per recording",
            lower_is_better=True,
        )
    ]


@contextmanager
def _recorded(bench: Bench, service: Service, rooms: int) -> Iterator[None]:
    people = bench.material.crowd(_PEOPLE, talking=_PEOPLE)
    room_ids = [service.new_room() for _ in range(rooms)]
    publishers = [
        Publisher(room_id, f"user-{index}", str(clip.path))
        for room_id in room_ids
        for index, clip in enumerate(people)
    ]

    def joined() -> None:
        for room_id in room_ids:
            service.start(room_id, task_pb2.RECORD_MODE_SINGLE, media_pb2.CONTAINER_MP3)

    with publishing(service.target, publishers, joined):
        yield


def _settled_mib(service: Service) -> float:
    time.sleep(_SETTLE_SECONDS)
    looks = []
    for _ in range(_LOOKS):
        looks.append(memory_mib(service.pid))
        time.sleep(_APART_SECONDS)
    return statistics.median(looks)
