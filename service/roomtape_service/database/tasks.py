"""Tasks as rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import task_pb2
from roomtape_service.database.tables import tasks

__all__ = [
    "RUNNING_STATES",
    "TaskRow",
    "complete_task",
    "find_task",
    "insert_task",
    "list_tasks",
    "modify_task",
    "set_state",
    "stop_task",
    "unfinished_tasks",
]

RUNNING_STATES = (task_pb2.TASK_STATE_WAITING, task_pb2.TASK_STATE_RECORDING, task_pb2.TASK_STATE_IDLE)
"""States of tasks that have not been stopped."""

_UNFINISHED = (*RUNNING_STATES, task_pb2.TASK_STATE_FINALIZING)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row of `tasks`; times in UTC nanoseconds; `subscription` and `output` serialized messages."""

    task_id: str
    app_id: str
    room_id: str
    room_key: str
    client_task_id: str
    state: int
    mode: int
    subscription: bytes
    output: bytes
    labels: str
    stop_reason: int
    start_ns: int
    stop_ns: int | None
    complete_ns: int | None
    idle_since_ns: int | None
    last_task_sequence: int

    @property
    def label_map(self) -> dict[str, str]:
        """The caller's labels."""
        return {str(key): str(value) for key, value in json.loads(self.labels).items()}


_COLUMNS = tuple(tasks.c[field.name] for field in fields(TaskRow))
# Made once: it takes longer than running it.
_FIND = sa.select(*_COLUMNS).where(
    tasks.c.task_id == sa.bindparam("of_task_id"), tasks.c.app_id == sa.bindparam("of_app_id")
)


async def insert_task(connection: AsyncConnection, row: TaskRow) -> None:
    """A task begins."""
    values = {column.name: getattr(row, column.name) for column in _COLUMNS}
    await connection.execute(sa.insert(tasks).values(values))


async def find_task(connection: AsyncConnection, app_id: str, task_id: str) -> TaskRow | None:
    """The application's task with this id."""
    row = (await connection.execute(_FIND, {"of_task_id": task_id, "of_app_id": app_id})).first()
    return TaskRow(*row) if row else None


async def set_state(
    connection: AsyncConnection, task_id: str, state: task_pb2.TaskState.ValueType, idle_since_ns: int | None
) -> None:
    """Moves a task along an edge of the state table; the database refuses any other."""
    await connection.execute(
        sa.update(tasks).where(tasks.c.task_id == task_id).values(state=state, idle_since_ns=idle_since_ns)
    )


async def stop_task(
    connection: AsyncConnection, task_id: str, reason: task_pb2.StopReason.ValueType, stop_ns: int
) -> None:
    """A task is stopped; its files follow."""
    values = {
        "state": task_pb2.TASK_STATE_FINALIZING,
        "stop_reason": reason,
        "stop_ns": stop_ns,
        "idle_since_ns": None,
    }
    await connection.execute(sa.update(tasks).where(tasks.c.task_id == task_id).values(values))


async def complete_task(connection: AsyncConnection, task_id: str, complete_ns: int) -> None:
    """Every file of a stopped task is in the store."""
    values = {"state": task_pb2.TASK_STATE_COMPLETED, "complete_ns": complete_ns}
    await connection.execute(sa.update(tasks).where(tasks.c.task_id == task_id).values(values))


async def modify_task(connection: AsyncConnection, task_id: str, mode: int, subscription: bytes) -> None:
    """What a task takes changes."""
    values = {"mode": mode, "subscription": subscription}
    await connection.execute(sa.update(tasks).where(tasks.c.task_id == task_id).values(values))


async def unfinished_tasks(connection: AsyncConnection) -> Sequence[TaskRow]:
    """Tasks of all applications that are not COMPLETED or FAILED, oldest first."""
    query = (
        sa.select(*_COLUMNS).where(tasks.c.state.in_(_UNFINISHED)).order_by(tasks.c.start_ns, tasks.c.task_id)
    )
    return [TaskRow(*row) for row in await connection.execute(query)]


async def list_tasks(
    connection: AsyncConnection,
    app_id: str,
    *,
    room_id: str = "",
    states: Sequence[int] = (),
    before: tuple[int, str] | None = None,
    limit: int,
) -> Sequence[TaskRow]:
    """Tasks, newest first, that come after `before` (start_ns and id of the last one of the page before)."""
    query = sa.select(*_COLUMNS).where(tasks.c.app_id == app_id)
    if room_id:
        query = query.where(tasks.c.room_id == room_id)
    if states:
        query = query.where(tasks.c.state.in_(states))
    if before is not None:
        start_ns, task_id = before
        older = sa.and_(tasks.c.start_ns == start_ns, tasks.c.task_id < task_id)
        query = query.where(sa.or_(tasks.c.start_ns < start_ns, older))
    query = query.order_by(tasks.c.start_ns.desc(), tasks.c.task_id.desc()).limit(limit)
    return [TaskRow(*row) for row in await connection.execute(query)]
