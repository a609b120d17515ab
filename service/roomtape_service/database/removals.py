"""Objects that are to be removed from their stores, as rows that go when the store confirmed."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database.tables import manifests, removals, segments
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = [
    "DuePlace",
    "RemovalRow",
    "add",
    "delay",
    "done",
    "due",
    "hasten",
    "is_needed",
    "places",
    "postpone",
]

_UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED
_ID_BYTES = 10


@dataclass(frozen=True, slots=True)
class RemovalRow:
    """A row of `removals`; times in UTC nanoseconds."""

    removal_id: str
    app_id: str
    store: str
    object_key: str
    attempts: int


@dataclass(frozen=True, slots=True)
class DuePlace:
    """An application's objects in one store; the first of them is due at `due_ns`."""

    app_id: str
    store: str
    due_ns: int


_COLUMNS = tuple(removals.c[each.name] for each in fields(RemovalRow))


async def add(uow: UnitOfWork, app_id: str, store: str, object_key: str, *, due_ns: int = 0) -> None:
    """The object is to be removed, not before `due_ns`: belongs into the unit that gives up its file."""
    insert = postgresql.insert if uow.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(removals).values(
        removal_id=secrets.token_hex(_ID_BYTES),
        app_id=app_id,
        store=store,
        object_key=object_key,
        create_ns=uow.now_ns,
        next_attempt_ns=due_ns,
    )
    statement = statement.on_conflict_do_nothing(index_elements=["store", "object_key"])
    await uow.connection.execute(statement)


async def places(connection: AsyncConnection) -> Sequence[DuePlace]:
    """Where there is something to remove, and from when on."""
    query = sa.select(removals.c.app_id, removals.c.store, sa.func.min(removals.c.next_attempt_ns))
    query = query.group_by(removals.c.app_id, removals.c.store)
    return [DuePlace(*row) for row in await connection.execute(query)]


async def due(
    connection: AsyncConnection, app_id: str, store: str, now_ns: int, limit: int
) -> Sequence[RemovalRow]:
    """An application's objects in a store whose time has come, longest due first."""
    query = sa.select(*_COLUMNS).where(
        removals.c.app_id == app_id, removals.c.store == store, removals.c.next_attempt_ns <= now_ns
    )
    query = query.order_by(removals.c.next_attempt_ns, removals.c.removal_id).limit(limit)
    return [RemovalRow(*row) for row in await connection.execute(query)]


async def is_needed(connection: AsyncConnection, store: str, object_key: str) -> bool:
    """Whether the object is a manifest, or that of a file which is in the store or on its way there."""
    is_file = sa.exists().where(
        # Written out, because SQLite takes a partial index only for the very condition that it was made with.
        sa.text("segments.object_key <> ''"),
        segments.c.store == store,
        segments.c.object_key == object_key,
        segments.c.state <= _UPLOADED,
    )
    is_manifest = sa.exists().where(manifests.c.store == store, manifests.c.object_key == object_key)
    return bool(await connection.scalar(sa.select(sa.or_(is_file, is_manifest))))


async def done(uow: UnitOfWork, store: str, object_keys: Sequence[str]) -> None:
    """The store has them no more."""
    condition = sa.and_(removals.c.store == store, removals.c.object_key.in_(object_keys))
    await uow.connection.execute(sa.delete(removals).where(condition))


async def delay(uow: UnitOfWork, removal_id: str, next_attempt_ns: int) -> None:
    """An attempt failed; the next is due at `next_attempt_ns`."""
    await uow.connection.execute(
        sa.update(removals)
        .where(removals.c.removal_id == removal_id)
        .values(attempts=removals.c.attempts + 1, next_attempt_ns=next_attempt_ns)
    )


async def postpone(uow: UnitOfWork, app_id: str, store: str, next_attempt_ns: int) -> None:
    """Nothing of what is due before is tried before `next_attempt_ns`."""
    await uow.connection.execute(
        sa.update(removals)
        .where(
            removals.c.app_id == app_id,
            removals.c.store == store,
            removals.c.next_attempt_ns < next_attempt_ns,
        )
        .values(next_attempt_ns=next_attempt_ns)
    )


async def hasten(uow: UnitOfWork) -> None:
    """All that failed before is due now."""
    await uow.connection.execute(sa.update(removals).where(removals.c.attempts > 0).values(next_attempt_ns=0))
