"""What is missing in recordings and what interrupted them, as rows: events may be gone before a manifest is written."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import gaps, interruptions
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = [
    "GapRow",
    "InterruptionRow",
    "add_gap",
    "add_interruption",
    "gaps_of_task",
    "interruptions_of_task",
]


@dataclass(frozen=True, slots=True)
class GapRow:
    """A row of `gaps`: a user's media between two room times, in UTC nanoseconds; `reason` is a GapReason."""

    task_id: str
    recording_id: str
    user_id: str
    start_ns: int
    end_ns: int
    reason: int


@dataclass(frozen=True, slots=True)
class InterruptionRow:
    """A row of `interruptions`: a segment that ended by a fault; `cause` is an InterruptionCause.

    `time_ns` is when it was found, UTC nanoseconds of the server's clock.
    """

    task_id: str
    recording_id: str
    segment_id: int
    cause: int
    time_ns: int


_GAP_COLUMNS = tuple(gaps.c[field.name] for field in fields(GapRow))
_INTERRUPTION_COLUMNS = tuple(interruptions.c[field.name] for field in fields(InterruptionRow))


async def add_gap(uow: UnitOfWork, row: GapRow) -> bool:
    """Keeps a gap. False when that very gap (recording, user, start and end) was known; nothing changes then."""
    return await _add(uow, gaps, {field.name: getattr(row, field.name) for field in fields(GapRow)})


async def add_interruption(uow: UnitOfWork, row: InterruptionRow) -> bool:
    """Keeps an interruption. False when that segment's was known; the first cause stays then."""
    values = {field.name: getattr(row, field.name) for field in fields(InterruptionRow)}
    return await _add(uow, interruptions, values)


async def gaps_of_task(connection: AsyncConnection, task_id: str) -> Sequence[GapRow]:
    """All gaps of a task, by recording, user and time."""
    query = sa.select(*_GAP_COLUMNS).where(gaps.c.task_id == task_id)
    query = query.order_by(gaps.c.recording_id, gaps.c.user_id, gaps.c.start_ns, gaps.c.end_ns)
    return [GapRow(*row) for row in await connection.execute(query)]


async def interruptions_of_task(connection: AsyncConnection, task_id: str) -> Sequence[InterruptionRow]:
    """All interruptions of a task, by recording and segment."""
    query = sa.select(*_INTERRUPTION_COLUMNS).where(interruptions.c.task_id == task_id)
    query = query.order_by(interruptions.c.recording_id, interruptions.c.segment_id)
    return [InterruptionRow(*row) for row in await connection.execute(query)]


async def _add(uow: UnitOfWork, table: sa.Table, values: dict[str, str | int]) -> bool:
    insert = postgresql.insert if uow.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing()
    return (await uow.connection.execute(statement)).rowcount == 1
