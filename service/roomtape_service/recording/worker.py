"""A worker process: `python -m roomtape_service.recording.worker --socket PATH --spool DIR --index N`.

It connects to its node, takes frames, and writes segments into a folder of its own on the spool. When the node is
gone it exits at once, without finishing anything: recovery is the one way back, and so it is always tested. Signals
that reach the whole process group do not concern it; the node says when to stop.
"""

import argparse
import gc
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from roomtape_service import failpoints
from roomtape_service.clock import NANOSECONDS, Clock, SystemClock
from roomtape_service.readiness import EXIT_NODE_GONE
from roomtape_service.recording.closing import Closer
from roomtape_service.recording.link import NodeLink
from roomtape_service.recording.protocol import Bye, Hello
from roomtape_service.recording.series import SeriesServices
from roomtape_service.recording.studio import Studio
from roomtape_service.spool.generation import Generation
from roomtape_service.storage.part import PART_BYTES

__all__ = ["Worker", "WorkerSettings", "main"]

_TICK_NS: Final = NANOSECONDS // 3
"""How often checkpoints are written. A kill costs this, a batch of 100 ms, and what encoders hold (0.15 s, at 8 kHz
0.3 s): together less than a second. More often costs more than all else that is done with passed packets."""
_GATHER_SECONDS: Final = 0.16
"""After a read the worker sleeps, so that frames of many publishers cost one wake-up; never past a tick."""
_GATHER_BYTES_MAX: Final = 64 * 1024
"""Not when so much comes at once: then the node has more."""
_GC_THRESHOLDS: Final = (20_000, 20, 20)
_NODE_WAIT_NS: Final = 30 * NANOSECONDS
_CONNECT_PAUSE_SECONDS: Final = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with."""

    socket: Path
    """The node's Unix socket."""
    spool: Path
    """The folder in which the worker makes its own."""
    index: int
    """Which of the node's workers it is."""
    waits_for_disk: bool
    """Whether acknowledged media is on the disk (`--durability power`), or with the kernel."""


class Worker:
    """One life of a worker."""

    def __init__(self, settings: WorkerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        name = f"{clock.now_ns():020d}-{settings.index}-{os.getpid()}"
        self._generation = Generation(settings.spool, name)
        self._link = NodeLink(str(settings.socket))
        self._closer = Closer(self._link.wake)

    def run(self) -> bool:
        """Works until the node says stop (True) or is gone (False). Raises OSError, ProtocolError."""
        # What is there now stays, and hardly anything of what comes is in a cycle: nothing to look for often.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        if not self._connect():
            return False
        self._generation.open()
        folder = self._generation.folder
        self._link.send(Hello(self._settings.index, self._generation.name, os.getpid(), str(folder)))
        self._link.flush()
        services = SeriesServices(
            folder,
            self._link.send,
            self._closer,
            self._settings.waits_for_disk,
            failpoints.overrides().part_bytes or PART_BYTES,
        )
        studio = Studio(services, self._clock)
        try:
            return self._work(studio)
        except (BrokenPipeError, ConnectionResetError):
            return False

    def _connect(self) -> bool:
        """Waits for a node that starts at the same time. False when who starts both is gone: none will come, and who
        follows waits for us to end."""
        until_ns = self._clock.monotonic_ns() + _NODE_WAIT_NS
        parent = os.getppid()
        while True:
            try:
                self._link.connect()
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                if os.getppid() != parent:
                    return False
                if self._clock.monotonic_ns() >= until_ns:
                    raise
            time.sleep(_CONNECT_PAUSE_SECONDS)

    def _work(self, studio: Studio) -> bool:
        link, clock = self._link, self._clock
        next_tick_ns = clock.monotonic_ns() + _TICK_NS
        while True:
            messages = link.receive((next_tick_ns - clock.monotonic_ns()) / NANOSECONDS)
            if messages is None:
                return False
            for message in messages:
                studio.handle(message)
            now_ns = clock.monotonic_ns()
            if now_ns >= next_tick_ns or studio.is_shutting_down or self._closer.has_results:
                studio.tick()
                next_tick_ns = now_ns + _TICK_NS
            link.flush()
            if studio.is_shutting_down and studio.is_done:
                break
            if 0 < link.received_bytes < _GATHER_BYTES_MAX and not studio.is_shutting_down:
                time.sleep(
                    min(_GATHER_SECONDS, max(0.0, (next_tick_ns - clock.monotonic_ns()) / NANOSECONDS))
                )
        self._closer.close()
        link.send(Bye())
        link.flush()
        link.close()
        self._generation.close()
        return True


def main(arguments: list[str] | None = None) -> int:
    """The process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="roomtape_service.recording.worker")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--durability", choices=("kernel", "power"), default="kernel")
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    settings = WorkerSettings(given.socket, given.spool, given.index, given.durability == "power")
    if Worker(settings, SystemClock()).run():
        return 0
    log.info("node_gone", index=settings.index)
    sys.stdout.flush()
    # Not by way of interpreter exit, which would wait for a segment that is being finished.
    os._exit(EXIT_NODE_GONE)


if __name__ == "__main__":
    sys.exit(main())
