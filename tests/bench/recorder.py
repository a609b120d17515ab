"""Our own contestant: rooms recorded by the running service."""

import time
from collections.abc import Sequence

from roomtape.v1 import media_pb2, task_pb2
from tests.bench.crowd import publishing
from tests.bench.load import Publisher
from tests.bench.material import Clip
from tests.bench.processes import cpu_seconds
from tests.bench.service import Service

__all__ = ["Recorder"]


class Recorder:
    """`rooms` rooms with the same people, each recorded by one task.

    A turn counts the CPU of supervisor, node and workers while everything runs evenly; then it stops the tasks, and
    checks that every file is in the store, no shorter than the turn, and misses no frame.
    """

    name = "roomtape"
    group = "ours"

    def __init__(
        self,
        service: Service,
        people: Sequence[Clip],
        *,
        rooms: int,
        mode: task_pb2.RecordMode.ValueType,
        container: media_pb2.Container.ValueType,
        seconds: float,
    ) -> None:
        self._service = service
        self._people = people
        self._rooms = rooms
        self._mode: task_pb2.RecordMode.ValueType = mode
        self._container: media_pb2.Container.ValueType = container
        self._seconds = seconds

    def turn(self) -> float:
        """Returns the percentage of a core that one recording takes."""
        service = self._service
        room_ids = [service.new_room() for _ in range(self._rooms)]
        publishers = [
            Publisher(room_id, f"user-{index}", str(clip.path))
            for room_id in room_ids
            for index, clip in enumerate(self._people)
        ]
        tasks: list[str] = []

        def joined() -> None:
            tasks.extend(service.start(room_id, self._mode, self._container) for room_id in room_ids)

        with publishing(service.target, publishers, joined):
            cpu_before, started = cpu_seconds([service.pid]), time.monotonic()
            time.sleep(self._seconds)
            used, elapsed = cpu_seconds([service.pid]) - cpu_before, time.monotonic() - started
        recordings = self._check(tasks)
        return 100 * used / elapsed / recordings

    def _check(self, tasks: Sequence[str]) -> int:
        segments = self._service.finish(tasks)
        mixed = self._mode == task_pb2.RECORD_MODE_MIXED
        expected = self._rooms * (1 if mixed else len(self._people))
        if len(segments) != expected:
            raise RuntimeError(f"{len(segments)} segments instead of {expected}")
        for segment in segments:
            seconds = segment.duration.ToTimedelta().total_seconds()
            if seconds < self._seconds or segment.statistics.lost or segment.interrupted:
                raise RuntimeError(f"a segment is not as it should be: {segment}")
        return expected
