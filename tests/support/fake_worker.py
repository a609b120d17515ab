"""Stands in for a worker under the supervisor: ends when its connection to the node does."""

import argparse
import os
import socket
from pathlib import Path

from tests.support.journals import note

parser = argparse.ArgumentParser()
for name in ("socket", "spool", "index", "durability"):
    parser.add_argument(f"--{name}", required=True)
given = parser.parse_args()
data_dir = Path(given.spool).parent
name = f"worker-{given.index}"
note(data_dir, name, f"starts {os.getpid()} {given.durability}")
node = socket.socket(socket.AF_UNIX)
node.connect(given.socket)
node.recv(1)
note(data_dir, name, "has stopped")
