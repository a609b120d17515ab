"""Peers that are programs: a process for each recording, which reads files at the pace of real time."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.crowd import WARM_SECONDS
from tests.bench.processes import cpu_seconds

__all__ = ["Pipelines"]

# Processes that were started together would wake up together.
_APART_SECONDS = 0.013
_END_SECONDS = 10.0
# Half of what a window of MP3 or Opus at these bit rates must have written at the least.
_LEAST_BYTES_PER_SECOND = 1000


class Pipelines:
    """`count` processes; `command` makes each one's command line out of the file that it is to write."""

    def __init__(
        self,
        name: str,
        group: str,
        command: Callable[[Path], Sequence[str]],
        *,
        count: int,
        seconds: float,
        folder: Path,
        suffix: str,
    ) -> None:
        self.name = name
        self.group = group
        self._command = command
        self._seconds = seconds
        self._least_bytes = seconds * _LEAST_BYTES_PER_SECOND
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs = [folder / f"{index}{suffix}" for index in range(count)]

    def turn(self) -> float:
        """Returns the percentage of a core that one recording takes."""
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for output in self._outputs:
                output.unlink(missing_ok=True)
                processes.append(
                    subprocess.Popen(
                        self._command(output), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                    )
                )
                time.sleep(_APART_SECONDS)
            time.sleep(WARM_SECONDS)
            pids = [process.pid for process in processes]
            cpu_before, started = cpu_seconds(pids), time.monotonic()
            time.sleep(self._seconds)
            used, elapsed = cpu_seconds(pids) - cpu_before, time.monotonic() - started
            ended = [process for process in processes if process.poll() is not None]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(_END_SECONDS)
        # Files are looked at when they are closed: FFmpeg keeps up to 256 KiB until then.
        short = [output for output in self._outputs if output.stat().st_size < self._least_bytes]
        if ended or short:
            raise RuntimeError(f"{self.name} does not record: {self._command(self._outputs[0])}")
        return 100 * used / elapsed / len(processes)
