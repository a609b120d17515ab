"""Answers to DescribeTaskInfo of a room that is recorded, every call logged, against a bare echo of the request.

64 calls are on their way at any time, over 4 connections of one process, which is enough to keep either server busy.
"""

import statistics
from collections.abc import Sequence

from roomtape.v1 import media_pb2, task_pb2
from tests.bench import bare
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.service import APP, Service

__all__ = ["measure"]

_NAME = "describe"
_GOAL = 0.6
_METHOD = "/roomtape.v1.RecordingService/DescribeTaskInfo"
_ROUNDS = 5
_ROUND_SECONDS = 1.5


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    with Service(bench.folder / _NAME) as service, Child("tests.bench.bare") as echo:
        room_id = service.new_room()
        task_id = service.start(room_id, task_pb2.RECORD_MODE_MIXED, media_pb2.CONTAINER_MP3)
        request = task_pb2.DescribeTaskInfoRequest(app_id=APP, room_id=room_id).SerializeToString().hex()
        echo_target = f"127.0.0.1:{echo.number('port'):.0f}"
        with (
            Child("tests.bench.callers", service.target, _METHOD) as our_callers,
            Child("tests.bench.callers", echo_target, bare.ECHO) as echo_callers,
        ):
            for callers in (our_callers, echo_callers):
                callers.tell(request)
                callers.hear()
            ours, peer = [], []
            for _ in range(_ROUNDS):
                ours.append(_calls_per_second(our_callers))
                peer.append(_calls_per_second(echo_callers))
        service.finish([task_id])
    return [
        Figure(
            name=_NAME,
            ours=statistics.median(ours),
            peer=statistics.median(peer),
            peer_name="bare grpc.aio echo",
            goal=_GOAL,
            unit="calls per second",
            lower_is_better=False,
        )
    ]


def _calls_per_second(callers: Child) -> float:
    callers.tell(str(_ROUND_SECONDS))
    facts = callers.hear()
    calls, seconds = facts["calls"], facts["seconds"]
    assert isinstance(calls, int)
    assert isinstance(seconds, float)
    return calls / seconds
