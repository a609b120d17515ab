"""FFmpeg as a peer: every build that is found takes part, and the fastest counts."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg

from tests.bench.material import Clip

__all__ = ["Ffmpeg", "builds"]

_MP3 = ("-c:a", "libmp3lame", "-b:a", "64k", "-compression_level", "5")


class Ffmpeg:
    """One build, and the command lines by which it does our work."""

    def __init__(self, program: str) -> None:
        self._program = program
        first = subprocess.run([program, "-version"], check=True, capture_output=True, text=True).stdout
        self.name = f"ffmpeg {first.split()[2]}"

    def single(self, clip: Clip, output: Path) -> Sequence[str]:
        """Opus decoded, MP3 encoded."""
        return [*self._start(), *_paced(clip), *_MP3, str(output)]

    def copy(self, clip: Clip, output: Path) -> Sequence[str]:
        """Opus packets copied into Ogg."""
        return [*self._start(), *_paced(clip), "-c", "copy", str(output)]

    def mix(self, clips: Sequence[Clip], output: Path) -> Sequence[str]:
        """All decoded, mixed, MP3 encoded. A gap must be filled before amix, which would close it."""
        inputs = [part for clip in clips for part in _paced(clip)]
        labels, filled = "", ""
        for index, clip in enumerate(clips):
            if clip.path.suffix == ".mka":
                filled += f"[{index}:a]aresample=async=1:first_pts=0[filled{index}];"
                labels += f"[filled{index}]"
            else:
                labels += f"[{index}:a]"
        graph = f"{filled}{labels}amix=inputs={len(clips)}:normalize=0"
        return [*self._start(), *inputs, "-filter_complex", graph, *_MP3, str(output)]

    def _start(self) -> Sequence[str]:
        return [self._program, "-nostdin", "-loglevel", "error", "-y"]


def _paced(clip: Clip) -> Sequence[str]:
    return ["-re", "-i", str(clip.path)]


def builds() -> Sequence[Ffmpeg]:
    """The wheel's build, and the system's if there is one."""
    programs = [imageio_ffmpeg.get_ffmpeg_exe()]
    system = shutil.which("ffmpeg")
    if system is not None and Path(system).resolve() != Path(programs[0]).resolve():
        programs.append(system)
    return [Ffmpeg(program) for program in programs]
