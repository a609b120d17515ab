"""Logs that are there before anybody watches."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database, UnitOfWork, applications

__all__ = ["event_of", "write_history"]

_UNIT_EVENTS = 500


async def write_history(database_file: Path, app_id: str, events: int) -> None:
    """Makes a database with an application, and as many events."""
    database = Database(f"sqlite:///{database_file}", SystemClock())
    await database.open()

    async def add(uow: UnitOfWork) -> None:
        await applications.add(uow, applications.ApplicationRecord(app_id))

    async def append(numbers: Sequence[int], uow: UnitOfWork) -> None:
        for number in numbers:
            await uow.append(event_of(app_id, number))

    await database.write(add)
    for first in range(0, events, _UNIT_EVENTS):
        numbers = range(first, min(first + _UNIT_EVENTS, events))
        await database.write(partial(append, numbers))
    await database.aclose()


def event_of(app_id: str, number: int, task_id: str = "") -> event_pb2.Event:
    """An event as large as most are."""
    task = task_pb2.Task(
        app_id=app_id,
        task_id=f"{7_340_000_000_000_000_000 + number}",
        room_id=f"room-{number}",
        mode=task_pb2.RECORD_MODE_MIXED,
        state=task_pb2.TASK_STATE_RECORDING,
        labels={"customer": f"c{number % 97}"},
    )
    task.start_time.FromSeconds(1_700_000_000 + number)
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_TASK_MODIFIED,
        app_id=app_id,
        room_id=task.room_id,
        task_id=task_id,
        task=event_pb2.TaskDetail(task=task),
    )
