"""A watcher in a process of its own: one line for each event that it was handed.

`python -m tests.faults.watcher TARGET APP FILE`: from the oldest event on, until SIGTERM. A line is the event's
sequence, its task's id and its sequence in that, its type, and the file that it is about, separated by spaces, `-` for
nothing.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from roomtape.client import Client, RetrySettings
from roomtape.v1 import event_pb2

__all__ = ["WatchedEvent", "read_events"]


@dataclass(frozen=True, slots=True)
class WatchedEvent:
    """A line."""

    sequence: int
    task_id: str
    task_sequence: int
    type: event_pb2.EventType.ValueType
    file_id: str


def read_events(path: Path) -> list[WatchedEvent]:
    """What a watcher was handed so far, in that order."""
    events = []
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if line.endswith("\n"):
            sequence, task_id, task_sequence, kind, file_id = line.split()
            events.append(
                WatchedEvent(
                    int(sequence), task_id, int(task_sequence), event_pb2.EventType.Value(kind), file_id
                )
            )
    return events


async def main(target: str, app_id: str, path: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    async with Client(target, retry=RetrySettings(max_seconds=0.5)) as client:
        watch = client.watch_events(app_id, origin=event_pb2.WATCH_ORIGIN_OLDEST)
        try:
            async with watch:
                async for event in watch:
                    file_id = event.segment.segment.file_id if event.WhichOneof("detail") == "segment" else ""
                    words = [
                        str(event.sequence),
                        event.task_id or "-",
                        str(event.task_sequence),
                        event_pb2.EventType.Name(event.type),
                        file_id or "-",
                    ]
                    os.write(descriptor, (" ".join(words) + "\n").encode())
        except asyncio.CancelledError:
            pass


if __name__ == "__main__":
    _target, _app, _file = sys.argv[1:]
    asyncio.run(main(_target, _app, Path(_file)))
