"""Stands in for a worker under the supervisor: ends when its connection to the node does."""

import argparse
import os
import socket
import sys
import time
from pathlib import Path

from roomtape_service.readiness import EXIT_NODE_GONE
from tests.support.journals import note

parser = argparse.ArgumentParser()
for name in ("socket", "spool", "index", "durability"):
    parser.add_argument(f"--{name}", required=True)
given = parser.parse_args()
data_dir = Path(given.spool).parent
name = f"worker-{given.index}"
note(data_dir, name, f"starts {os.getpid()} {given.durability}")
node = socket.socket(socket.AF_UNIX)
while True:
    try:
        node.connect(given.socket)
        break
    except (FileNotFoundError, ConnectionRefusedError):
        time.sleep(0.01)
node.recv(1)
note(data_dir, name, "has stopped")
sys.exit(EXIT_NODE_GONE)
