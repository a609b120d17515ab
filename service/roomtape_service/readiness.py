"""How a node tells its supervisor that it serves: one line of JSON on stdout.

And the exit codes by which children say why they end.
"""

import json
import sys
from dataclasses import asdict, dataclass

__all__ = ["EXIT_NODE_GONE", "EXIT_UNUSABLE", "Ready", "announce", "read_announcement"]

# A worker whose node is gone ends at once, by this.
EXIT_NODE_GONE = 3

# EX_CONFIG of sysexits.h: settings that can't work, a port that is taken, a database of a newer version.
EXIT_UNUSABLE = 78


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a node serves, as `host:port`; ports that the settings left open are known here."""

    listen: str
    http_listen: str


def announce(ready: Ready) -> None:
    """Tells that everything is up: gRPC, HTTP, and at least one worker."""
    print(json.dumps({"ready": asdict(ready)}), flush=True, file=sys.stdout)


def read_announcement(line: bytes) -> Ready | None:
    """What `announce` wrote, or None for a line that is something else."""
    try:
        ready = json.loads(line)["ready"]
        return Ready(listen=str(ready["listen"]), http_listen=str(ready["http_listen"]))
    except (ValueError, TypeError, KeyError):
        return None
