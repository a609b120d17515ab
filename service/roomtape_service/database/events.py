"""The log as rows: reading on from a place, and taking old events away."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, task_pb2
from roomtape_service.database.labels import tasks_labelled
from roomtape_service.database.tables import applications, events, tasks
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal

__all__ = ["Bounds", "LoggedRow", "after", "bounds", "compact", "expired_through", "heads", "task_ends"]

_ENDED = (task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED)


class LoggedRow(NamedTuple):
    """An event as it is stored; `payload` is the serialized Event."""

    sequence: int
    task_id: str
    room_id: str
    type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a log holds: the events from `compacted + 1` to `head`."""

    head: int
    compacted: int


async def bounds(connection: AsyncConnection, app_id: str) -> Bounds:
    """The ends of an application's log. Raises Refusal APPLICATION_NOT_FOUND."""
    query = select(applications.c.last_sequence, applications.c.compacted_sequence)
    row = (await connection.execute(query.where(applications.c.app_id == app_id))).first()
    if row is None:
        raise Refusal(
            error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND,
            f"There is no application {app_id!r}.",
            metadata={"appId": app_id},
        )
    return Bounds(row.last_sequence, row.compacted_sequence)


async def heads(connection: AsyncConnection, app_ids: Collection[str]) -> Mapping[str, int]:
    """The newest sequence of each of these applications."""
    query = select(applications.c.app_id, applications.c.last_sequence)
    rows = await connection.execute(query.where(applications.c.app_id.in_(sorted(app_ids))))
    return {row.app_id: row.last_sequence for row in rows}


async def after(
    connection: AsyncConnection,
    app_id: str,
    sequence: int,
    limit: int,
    *,
    task_ids: frozenset[str] = frozenset(),
    room_ids: frozenset[str] = frozenset(),
    types: frozenset[int] = frozenset(),
    labels: Mapping[str, str] | None = None,
) -> Sequence[LoggedRow]:
    """The first `limit` events after `sequence` that meet every condition which is not empty."""
    conditions: list[ColumnElement[bool]] = [events.c.app_id == app_id, events.c.sequence > sequence]
    if task_ids:
        conditions.append(events.c.task_id.in_(sorted(task_ids)))
    if room_ids:
        conditions.append(events.c.room_id.in_(sorted(room_ids)))
    if types:
        conditions.append(events.c.type.in_(sorted(types)))
    conditions += [
        events.c.task_id.in_(tasks_labelled(app_id, key, value)) for key, value in (labels or {}).items()
    ]
    query = select(*(events.c[name] for name in LoggedRow._fields)).where(*conditions)
    rows = await connection.execute(query.order_by(events.c.sequence).limit(limit))
    return [LoggedRow(*row) for row in rows]


async def task_ends(
    connection: AsyncConnection, app_id: str, task_ids: Collection[str]
) -> Mapping[str, int | None]:
    """Of each of these tasks that the application has, the place of its last event; None while it goes on.

    0 for a last event that was compacted.
    """
    # Written out, because SQLite takes a partial index only for the very condition that it was made with.
    last = and_(
        events.c.task_id == tasks.c.task_id,
        events.c.task_sequence == tasks.c.last_task_sequence,
        text("events.task_id <> ''"),
    )
    query = (
        select(tasks.c.task_id, tasks.c.state, func.coalesce(events.c.sequence, 0))
        .select_from(tasks.outerjoin(events, last))
        .where(tasks.c.app_id == app_id, tasks.c.task_id.in_(sorted(task_ids)))
    )
    rows = await connection.execute(query)
    return {task_id: place if state in _ENDED else None for task_id, state, place in rows}


async def expired_through(
    connection: AsyncConnection, app_id: str, *, keep_events: int, keep_bytes: int, older_than_ns: int
) -> tuple[Bounds, int]:
    """The log's ends, and the newest sequence that need not be kept.

    That is one which `keep_events` or `keep_bytes` follow, or which is too old like all before it.
    """
    ends = await bounds(connection, app_id)
    newest = (events.c.app_id == app_id, events.c.sequence == ends.head)
    bytes_logged = await connection.scalar(select(events.c.logged_bytes).where(*newest)) or 0

    async def before(is_kept: ColumnElement[bool]) -> int:
        # From the oldest on: what is looked at is what goes, and one more.
        query = select(events.c.sequence).where(
            events.c.app_id == app_id, events.c.sequence > ends.compacted, is_kept
        )
        oldest_kept = await connection.scalar(query.order_by(events.c.sequence).limit(1))
        return ends.head if oldest_kept is None else oldest_kept - 1

    by_age = await before(events.c.event_ns >= older_than_ns)
    by_size = await before(events.c.logged_bytes > bytes_logged - keep_bytes)
    return ends, max(by_age, by_size, ends.head - keep_events, ends.compacted)


async def compact(uow: UnitOfWork, app_id: str, through: int, limit: int) -> int:
    """Takes away up to `limit` of the oldest events up to `through`; the newest that is gone then."""
    await uow.lock_application(app_id)
    ends = await bounds(uow.connection, app_id)
    through = min(through, ends.compacted + limit, ends.head)
    if through > ends.compacted:
        await uow.connection.execute(
            delete(events).where(events.c.app_id == app_id, events.c.sequence <= through)
        )
        await uow.connection.execute(
            update(applications).where(applications.c.app_id == app_id).values(compacted_sequence=through)
        )
    return max(through, ends.compacted)
