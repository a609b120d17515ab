"""Nodes that have imported everything before their turn: `python -m tests.support.warm_node`.

For each path of settings on stdin a copy of this process becomes `roomtape_service.node`: its pid is printed, then what
the node announces, then its exit code as `ended CODE`. Importing gRPC starts no thread, so the copy is whole.
"""

import os
import sys

from roomtape_service.node import main
from roomtape_service.observability.logging import configure


def become_nodes() -> None:
    """One after the other, until stdin ends."""
    while path := sys.stdin.readline().strip():
        pid = os.fork()
        if not pid:
            configure("info", "json", "node")
            sys.exit(main(["--settings", path]))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    become_nodes()
