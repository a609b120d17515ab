"""Stands in for a node under the supervisor: a socket for workers, an announcement, a journal of what happened.

Its manners are those of the files in its data folder: `hangs` ignores SIGTERM, `unusable` and `broken` end at once.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from roomtape_service.readiness import EXIT_UNUSABLE, Ready, announce
from tests.support.journals import note

settings = json.loads(Path(sys.argv[2]).read_text())
data_dir = Path(settings["data_dir"])
mode = Path(sys.argv[2]).stat().st_mode & 0o777
note(data_dir, "node", f"starts {os.getpid()} {os.getpgid(0)} {settings['listen']} {mode:o}")
if (data_dir / "unusable").exists():
    sys.exit(EXIT_UNUSABLE)
if (data_dir / "broken").exists():
    sys.exit(1)

stopping = False


def stop(*_arguments: object) -> None:
    global stopping
    note(data_dir, "node", "is told to stop")
    stopping = not (data_dir / "hangs").exists()


signal.signal(signal.SIGTERM, stop)
server = socket.socket(socket.AF_UNIX)
server.bind(str(data_dir / "run" / "node.sock"))
server.listen()
server.settimeout(0.01)
workers: list[socket.socket] = []
said = False
while not stopping:
    with suppress(TimeoutError):
        workers.append(server.accept()[0])
    if len(workers) == settings["workers"] and not said:
        said = True
        print("a line that is no announcement", flush=True)
        host, port = settings["listen"].rsplit(":", 1)
        announce(Ready(listen=f"{host}:{port if port != '0' else 7999}", http_listen="127.0.0.1:7998"))
note(data_dir, "node", "has stopped")
for worker in workers:
    worker.close()
