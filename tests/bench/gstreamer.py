"""GStreamer as a peer; Debian: gstreamer1.0-tools and the plugins base, good and ugly."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.material import Clip

__all__ = ["Gstreamer", "installed"]

_PROGRAM = "gst-launch-1.0"


class Gstreamer:
    """The command line by which GStreamer does our work."""

    def __init__(self, program: str) -> None:
        self._program = program
        version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        self.name = f"GStreamer {version.split()[2]}"

    def mix(self, clips: Sequence[Clip], output: Path) -> Sequence[str]:
        """All decoded, mixed, MP3 encoded with the engine's quality 5.

        One clock after the mixer paces all inputs, which costs less than one for each.
        """
        command = [self._program, "-q", "audiomixer", "name=mix", "!", "clocksync", "!"]
        command += ["lamemp3enc", "target=bitrate", "bitrate=64", "cbr=true"]
        command += ["encoding-engine-quality=standard", "!", "filesink", f"location={output}", "async=false"]
        for clip in clips:
            demuxer = "matroskademux" if clip.path.suffix == ".mka" else "oggdemux"
            command += ["filesrc", f"location={clip.path}", "!", demuxer, "!", "opusdec", "!", "mix."]
        return command


def installed() -> Gstreamer | None:
    """GStreamer, if it is there."""
    program = shutil.which(_PROGRAM)
    return None if program is None else Gstreamer(program)
