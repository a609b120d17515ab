"""Manifests as rows: for each task how many changes its manifest should tell of, and how many the stored one does."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2, task_pb2
from roomtape_service.database.tables import manifests, recordings, segments, tasks
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
    "taken_away",
    "written",
]

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_WAITING = sa.text("manifests.written < manifests.wanted")

_IS_LAST = sa.and_(
    tasks.c.state == task_pb2.TASK_STATE_FINALIZING,
    ~sa.exists().where(recordings.c.task_id == manifests.c.task_id, recordings.c.end_ns.is_(None)),
    ~sa.exists().where(
        segments.c.task_id == manifests.c.task_id,
        segments.c.state < segment_pb2.SEGMENT_STATE_UPLOADED,
        segments.c.joined == 0,
    ),
)


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
    """Manifests that are to be written and whose time has come, longest due first.

    Of a stopped task that lacks nothing but its manifest it has come at once, unless an attempt failed, and those are
    first. `without` are applications of which none is wanted now.
    """
    is_last = sa.and_(_IS_LAST, manifests.c.attempts == 0)
    query = sa.select(*_COLUMNS).join(tasks, tasks.c.task_id == manifests.c.task_id)
    query = query.where(_WAITING, sa.or_(manifests.c.next_attempt_ns <= now_ns, is_last))
    if without:
        query = query.where(manifests.c.app_id.not_in(without))
    query = query.order_by(sa.case((is_last, 0), else_=1), manifests.c.next_attempt_ns, manifests.c.task_id)
    return [ManifestRow(*row) for row in await connection.execute(query.limit(limit))]


async def earliest(connection: AsyncConnection, after_ns: int) -> int | None:
    """When the next manifest after a time is due; None when none waits for a later time."""
    query = sa.select(sa.func.min(manifests.c.next_attempt_ns))
    value = await connection.scalar(query.where(_WAITING, manifests.c.next_attempt_ns > after_ns))
    return None if value is None else int(value)


async def written(uow: UnitOfWork, task_id: str, manifest: WrittenManifest, next_attempt_ns: int) -> None:
    """The store has it; one with more changes is due at `next_attempt_ns`."""
    values = {field.name: getattr(manifest, field.name) for field in fields(WrittenManifest)}
    values |= {"attempts": 0, "next_attempt_ns": next_attempt_ns}
    await uow.connection.execute(sa.update(manifests).where(manifests.c.task_id == task_id).values(values))


async def taken_away(uow: UnitOfWork, task_id: str, written: int) -> None:
    """There is to be none after the first `written` changes: no store has a file of the task any more."""
    values = {"is_complete": False, "store": "", "object_key": "", "url": "", "size_bytes": 0, "sha256": ""}
    values |= {"written": written, "update_ns": None, "attempts": 0}
    await uow.connection.execute(sa.update(manifests).where(manifests.c.task_id == task_id).values(values))


async def delay(uow: UnitOfWork, task_id: str, next_attempt_ns: int) -> None:
    """An attempt failed; the next is due at `next_attempt_ns`."""
    values = {"attempts": manifests.c.attempts + 1, "next_attempt_ns": next_attempt_ns}
    await uow.connection.execute(sa.update(manifests).where(manifests.c.task_id == task_id).values(values))


async def hasten(uow: UnitOfWork, app_id: str) -> None:
    """All manifests of the application that are to be written are due now: its store was mended, or changed."""
    update = sa.update(manifests).where(_WAITING, manifests.c.app_id == app_id)
    await uow.connection.execute(update.values(attempts=0, next_attempt_ns=0))
