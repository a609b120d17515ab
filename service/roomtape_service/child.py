"""What every child of the supervisor does before its own work; run as a module by the supervisor alone.

    python -m roomtape_service.child --name worker-0 --lifeline 5 … some.module --its --arguments

1. Logs are set up, so that the module only writes lines; failpoints are armed, where a test wants it.
2. SIGINT is ignored: Ctrl-C reaches all processes of a terminal, and the order of stopping is the supervisor's.
3. The lifeline is watched: a pipe whose other end the supervisor holds. When the supervisor is gone, however it died,
   the pipe ends, and so does the child: by SIGTERM after its patience, by SIGKILL if that does not help.
4. The module runs as `__main__`.
"""

import argparse
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from roomtape_service import failpoints
from roomtape_service.observability.logging import configure

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the module that the arguments name."""
    parser = argparse.ArgumentParser(prog="roomtape-child", allow_abbrev=False)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lifeline", type=int, required=True, help="descriptor of the pipe's reading end")
    parser.add_argument("--patience", type=float, required=True, help="seconds from its end to SIGTERM")
    parser.add_argument("--kill-after", type=float, required=True, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--log-format", required=True)
    parser.add_argument("--failpoints", type=Path, help="what goes wrong in it, for tests")
    parser.add_argument("module")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    configure(given.log_level, given.log_format, given.name)
    if given.failpoints is not None:
        failpoints.arm(given.failpoints)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(
        target=_follow, args=(given.lifeline, given.patience, given.kill_after), name="lifeline", daemon=True
    ).start()
    sys.argv = [given.module, *given.rest]
    runpy.run_module(given.module, run_name="__main__", alter_sys=True)


def _follow(lifeline: int, patience: float, kill_after: float) -> None:
    while os.read(lifeline, 1):
        pass
    time.sleep(patience)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(kill_after)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
