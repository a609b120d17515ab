"""What tasks took of their rooms over time, as rows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import scopes
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["ScopeRow", "add_scope", "scopes_of_task"]


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """From a time of the room's clock on (UTC nanoseconds); `subscription` is a serialized Subscription."""

    task_id: str
    time_ns: int
    mode: int
    subscription: bytes


_COLUMNS = tuple(scopes.c[field.name] for field in fields(ScopeRow))


async def add_scope(uow: UnitOfWork, row: ScopeRow) -> None:
    """The task takes this from now on; of several at one time the last counts."""
    insert = postgresql.insert if uow.connection.dialect.name == "postgresql" else sqlite.insert
    values = {field.name: getattr(row, field.name) for field in fields(ScopeRow)}
    statement = insert(scopes).values(values)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id", "time_ns"], set_={"mode": row.mode, "subscription": row.subscription}
    )
    await uow.connection.execute(statement)


async def scopes_of_task(connection: AsyncConnection, task_id: str) -> Sequence[ScopeRow]:
    """All scopes of a task, oldest first; none of tasks of before they were kept."""
    query = sa.select(*_COLUMNS).where(scopes.c.task_id == task_id).order_by(scopes.c.time_ns)
    return [ScopeRow(*row) for row in await connection.execute(query)]
