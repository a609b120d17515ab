"""Manifests as rows: for each task how many changes its manifest should tell of, and how many the stored one does."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import task_pb2
from roomtape_service.database.tables import manifests, tasks
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = [
    "ManifestRow",
    "WrittenManifest",
    "add_missing",
    "changed",
    "delay",
    "due",
    "earliest",
    "find",
    "hasten",
    "written",
]

_FINALIZING = task_pb2.TASK_STATE_FINALIZING

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_WAITING = sa.text("manifests.written < manifests.wanted")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A row of `manifests`; times in UTC nanoseconds.

    `store`, `object_key`, `url`, `size_bytes`, `sha256` and `update_ns` are of the one in the store, empty before.
    """

    task_id: str
    app_id: str
    wanted: int
    written: int
    is_complete: bool
    store: str
    object_key: str
    url: str
    size_bytes: int
    sha256: str
    update_ns: int | None
    attempts: int
    next_attempt_ns: int


@dataclass(frozen=True, slots=True)
class WrittenManifest:
    """A manifest that a store has; it tells of the first `written` changes."""

    written: int
    is_complete: bool
    store: str
    object_key: str
    url: str
    size_bytes: int
    sha256: str
    update_ns: int


_COLUMNS = tuple(manifests.c[field.name] for field in fields(ManifestRow))


async def changed(uow: UnitOfWork, app_id: str, task_id: str) -> None:
    """Something that the task's manifest tells has changed: it is to be written again."""
    insert = postgresql.insert if uow.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(manifests).values(task_id=task_id, app_id=app_id, wanted=1)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"], set_={"wanted": manifests.c.wanted + 1}
    )
    await uow.connection.execute(statement)


async def add_missing(uow: UnitOfWork) -> int:
    """Rows for tasks that have none: those of before there were manifests. Returns how many."""
    known = sa.select(manifests.c.task_id).where(manifests.c.task_id == tasks.c.task_id)
    missing = sa.select(tasks.c.task_id, tasks.c.app_id, sa.literal(1)).where(~sa.exists(known))
    insert = sa.insert(manifests).from_select(["task_id", "app_id", "wanted"], missing)
    return (await uow.connection.execute(insert)).rowcount


async def find(connection: AsyncConnection, app_id: str, task_id: str) -> ManifestRow | None:
    """The row of the application's task, if it has one."""
    query = sa.select(*_COLUMNS).where(manifests.c.task_id == task_id, manifests.c.app_id == app_id)
    row = (await connection.execute(query)).first()
    return ManifestRow(*row) if row else None


async def due(
    connection: AsyncConnection, now_ns: int, *, without: Collection[str], limit: int
) -> Sequence[ManifestRow]:
    """Manifests that are to be written and whose time has come: first of stopped tasks, then longest due first.

    `without` are the ids of applications of which none is wanted now.
    """
    query = sa.select(*_COLUMNS).join(tasks, tasks.c.task_id == manifests.c.task_id)
    query = query.where(_WAITING, manifests.c.next_attempt_ns <= now_ns)
    if without:
        query = query.where(manifests.c.app_id.not_in(without))
    stopped_first = sa.case((tasks.c.state == _FINALIZING, 0), else_=1)
    query = query.order_by(stopped_first, manifests.c.next_attempt_ns, manifests.c.task_id).limit(limit)
    return [ManifestRow(*row) for row in await connection.execute(query)]


async def earliest(connection: AsyncConnection) -> int | None:
    """When the first manifest that is to be written is due; None when there is none."""
    value = await connection.scalar(sa.select(sa.func.min(manifests.c.next_attempt_ns)).where(_WAITING))
    return None if value is None else int(value)


async def written(uow: UnitOfWork, task_id: str, manifest: WrittenManifest, next_attempt_ns: int) -> None:
    """The store has it; one with more changes is due at `next_attempt_ns`."""
    values = {field.name: getattr(manifest, field.name) for field in fields(WrittenManifest)}
    values |= {"attempts": 0, "next_attempt_ns": next_attempt_ns}
    await uow.connection.execute(sa.update(manifests).where(manifests.c.task_id == task_id).values(values))


async def delay(uow: UnitOfWork, task_id: str, next_attempt_ns: int) -> None:
    """An attempt failed; the next is due at `next_attempt_ns`."""
    values = {"attempts": manifests.c.attempts + 1, "next_attempt_ns": next_attempt_ns}
    await uow.connection.execute(sa.update(manifests).where(manifests.c.task_id == task_id).values(values))


async def hasten(uow: UnitOfWork, task_id: str) -> None:
    """The task's manifest is due now."""
    await uow.connection.execute(
        sa.update(manifests).where(manifests.c.task_id == task_id).values(next_attempt_ns=0)
    )
