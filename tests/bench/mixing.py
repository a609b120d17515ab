"""What the rows of mixes have in common: one mix of a room into MP3, by us, by FFmpeg's amix, by GStreamer."""

from collections.abc import Sequence
from functools import partial

from roomtape.v1 import media_pb2, task_pb2
from tests.bench import ffmpeg, gstreamer
from tests.bench.bench import Bench
from tests.bench.contest import Contestant, contest
from tests.bench.figures import Figure
from tests.bench.material import Clip
from tests.bench.pipelines import Pipelines
from tests.bench.recorder import Recorder
from tests.bench.service import Service

__all__ = ["measure_mix"]

_GROUPS = ("ffmpeg", "gstreamer")
_UNIT = "% of a core per mix"


def measure_mix(bench: Bench, name: str, people: Sequence[Clip], *, rooms: int, goal: float) -> list[Figure]:
    """`rooms` mixes of these people at once; one figure for each peer that is installed."""
    folder = bench.folder / name
    programs: list[tuple[str, ffmpeg.Ffmpeg | gstreamer.Gstreamer]] = [
        ("ffmpeg", build) for build in ffmpeg.builds()
    ]
    found = gstreamer.installed()
    if found is not None:
        programs.append(("gstreamer", found))
    with Service(folder / "service") as service:
        ours: Contestant = Recorder(
            service,
            people,
            rooms=rooms,
            mode=task_pb2.RECORD_MODE_MIXED,
            container=media_pb2.CONTAINER_MP3,
            seconds=bench.window_seconds,
        )
        peers: list[Contestant] = [
            Pipelines(
                program.name,
                group,
                partial(program.mix, people),
                count=rooms,
                seconds=bench.window_seconds,
                folder=folder / program.name,
                suffix=".mp3",
            )
            for group, program in programs
        ]
        results = contest([ours, *peers])
    return [
        Figure(
            name=name,
            ours=results["ours"][1],
            peer=results[group][1],
            peer_name=results[group][0],
            goal=goal,
            unit=_UNIT,
            lower_is_better=True,
        )
        for group in _GROUPS
        if group in results
    ]
