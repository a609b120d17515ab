"""What the rows of single recordings have in common: one file for each user, by us and by a process of FFmpeg each."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from roomtape.v1 import media_pb2, task_pb2
from tests.bench import ffmpeg
from tests.bench.bench import Bench
from tests.bench.contest import Contestant, contest
from tests.bench.figures import Figure
from tests.bench.material import Clip
from tests.bench.pipelines import Pipelines
from tests.bench.recorder import Recorder
from tests.bench.service import Service

__all__ = ["measure_singles"]

_PEOPLE = 5
_UNIT = "% of a core per recording"

_Make: TypeAlias = Callable[[Clip, Path], Sequence[str]]


def measure_singles(
    bench: Bench,
    name: str,
    container: media_pb2.Container.ValueType,
    command: Callable[[ffmpeg.Ffmpeg], _Make],
    *,
    rooms: int,
    suffix: str,
    goal: float,
) -> list[Figure]:
    """Rooms of 5 who all talk, recorded at once; `command` chooses what FFmpeg does."""
    folder = bench.folder / name
    people = bench.material.crowd(_PEOPLE, talking=_PEOPLE)

    def peer(build: ffmpeg.Ffmpeg) -> Contestant:
        return Pipelines(
            build.name,
            "ffmpeg",
            partial(_command, command(build)),
            count=rooms * _PEOPLE,
            seconds=bench.window_seconds,
            folder=folder / build.name,
            suffix=suffix,
        )

    def _command(make: _Make, output: Path) -> Sequence[str]:
        return make(people[int(output.stem) % _PEOPLE], output)

    with Service(folder / "service") as service:
        ours = Recorder(
            service,
            people,
            rooms=rooms,
            mode=task_pb2.RECORD_MODE_SINGLE,
            container=container,
            seconds=bench.window_seconds,
        )
        results = contest([ours, *map(peer, ffmpeg.builds())])
    return [
        Figure(
            name=name,
            ours=results["ours"][1],
            peer=results["ffmpeg"][1],
            peer_name=results["ffmpeg"][0],
            goal=goal,
            unit=_UNIT,
            lower_is_better=True,
        )
    ]
