"""Multipart uploads and their parts, as rows.

A row is there before the store is asked for what it speaks of, so after a crash nothing is at a store that no row tells
of. A file has at most one multipart that is not left.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database.tables import multiparts, parts, segments
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = [
    "DueLeft",
    "MultipartRow",
    "PartRow",
    "add",
    "add_part",
    "due_left",
    "find",
    "forget",
    "hasten_left",
    "ids_of_key",
    "leave",
    "left_before",
    "left_of",
    "parts_sent",
    "postpone_left",
    "set_tag",
    "set_upload_id",
]

_ID_BYTES = 10
_UPLOADING = segment_pb2.SEGMENT_STATE_UPLOADING


@dataclass(frozen=True, slots=True)
class MultipartRow:
    """A row of `multiparts`. `upload_id` is empty while it is not known whether the store began one."""

    multipart_id: str
    app_id: str
    file_id: str
    store: str
    object_key: str
    upload_id: str
    part_bytes: int


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part that was sent, or was about to be: `crc32` is of its bytes, `tag` empty until the store confirmed it."""

    number: int
    size_bytes: int
    crc32: int
    tag: str


@dataclass(frozen=True, slots=True)
class DueLeft:
    """Multiparts of an application in one store that are to be aborted; the first of them is due at `due_ns`."""

    app_id: str
    store: str
    due_ns: int


_COLUMNS = tuple(multiparts.c[field.name] for field in fields(MultipartRow))
_PART_COLUMNS = tuple(parts.c[field.name] for field in fields(PartRow))
# Made once: building statements costs more than running them, and these are run twice for each part.
_KEY = ["multipart_id", "number"]
_SENT_AGAIN = ("size_bytes", "crc32", "tag")
_SQLITE, _POSTGRES = sqlite.insert(parts), postgresql.insert(parts)
_ADD_PART: Mapping[str, sa.Insert] = {
    "sqlite": _SQLITE.on_conflict_do_update(
        index_elements=_KEY, set_={name: _SQLITE.excluded[name] for name in _SENT_AGAIN}
    ),
    "postgresql": _POSTGRES.on_conflict_do_update(
        index_elements=_KEY, set_={name: _POSTGRES.excluded[name] for name in _SENT_AGAIN}
    ),
}
_SET_TAG = (
    sa.update(parts)
    .where(
        parts.c.multipart_id == sa.bindparam("of_multipart_id"), parts.c.number == sa.bindparam("of_number")
    )
    .values(tag=sa.bindparam("new_tag"))
)
_DUE_NS = sa.func.coalesce(multiparts.c.next_attempt_ns, 0)


async def find(connection: AsyncConnection, file_id: str) -> MultipartRow | None:
    """The file's multipart that goes on."""
    query = sa.select(*_COLUMNS).where(multiparts.c.file_id == file_id, sa.not_(multiparts.c.is_left))
    row = (await connection.execute(query)).first()
    return None if row is None else MultipartRow(*row)


async def parts_sent(connection: AsyncConnection, multipart_id: str) -> Mapping[int, PartRow]:
    """The multipart's parts, by number."""
    query = sa.select(*_PART_COLUMNS).where(parts.c.multipart_id == multipart_id)
    return {row[0]: PartRow(*row) for row in await connection.execute(query)}


async def add(
    unit: UnitOfWork, app_id: str, file_id: str, store: str, object_key: str, part_bytes: int
) -> MultipartRow:
    """A store is about to be asked to begin one. What the file had before is left."""
    await leave(unit.connection, file_id)
    row = MultipartRow(secrets.token_hex(_ID_BYTES), app_id, file_id, store, object_key, "", part_bytes)
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    await unit.connection.execute(sa.insert(multiparts).values(**values, create_ns=unit.now_ns))
    return row


async def set_upload_id(connection: AsyncConnection, multipart_id: str, upload_id: str) -> None:
    """The store began it."""
    update = sa.update(multiparts).where(multiparts.c.multipart_id == multipart_id)
    await connection.execute(update.values(upload_id=upload_id))


async def add_part(connection: AsyncConnection, multipart_id: str, part: PartRow) -> None:
    """A part is about to be sent, for the first time or again."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    await connection.execute(_ADD_PART[connection.dialect.name], {"multipart_id": multipart_id, **values})


async def set_tag(connection: AsyncConnection, multipart_id: str, number: int, tag: str) -> None:
    """The store has the part."""
    await connection.execute(_SET_TAG, {"of_multipart_id": multipart_id, "of_number": number, "new_tag": tag})


async def leave(connection: AsyncConnection, file_id: str) -> None:
    """The file's multipart goes on no more; the store is asked until it confirmed that it is gone.

    Belongs into the unit that moves the file to another store. What is of files that are in no state to be uploaded is
    left without it.
    """
    update = sa.update(multiparts).where(multiparts.c.file_id == file_id, sa.not_(multiparts.c.is_left))
    await connection.execute(update.values(is_left=True, next_attempt_ns=None))


async def forget(connection: AsyncConnection, multipart_id: str) -> None:
    """The store has completed or aborted it."""
    await connection.execute(sa.delete(parts).where(parts.c.multipart_id == multipart_id))
    await connection.execute(sa.delete(multiparts).where(multiparts.c.multipart_id == multipart_id))


async def due_left(connection: AsyncConnection) -> Sequence[DueLeft]:
    """Where multiparts are to be aborted."""
    query = (
        sa.select(multiparts.c.app_id, multiparts.c.store, sa.func.min(_DUE_NS))
        .where(_is_left())
        .group_by(multiparts.c.app_id, multiparts.c.store)
    )
    return [DueLeft(*row) for row in await connection.execute(query)]


async def left_of(
    connection: AsyncConnection, app_id: str, store: str, now_ns: int, limit: int
) -> Sequence[MultipartRow]:
    """Multiparts to be aborted that are due, oldest first."""
    query = sa.select(*_COLUMNS).where(
        _is_left(), multiparts.c.app_id == app_id, multiparts.c.store == store, now_ns >= _DUE_NS
    )
    query = query.order_by(multiparts.c.create_ns, multiparts.c.multipart_id).limit(limit)
    return [MultipartRow(*row) for row in await connection.execute(query)]


async def left_before(
    connection: AsyncConnection, app_id: str, store: str, before_ns: int, limit: int
) -> Sequence[MultipartRow]:
    """Multiparts to be aborted that were begun before a time, oldest first."""
    query = sa.select(*_COLUMNS).where(
        _is_left(),
        multiparts.c.app_id == app_id,
        multiparts.c.store == store,
        multiparts.c.create_ns < before_ns,
    )
    query = query.order_by(multiparts.c.create_ns, multiparts.c.multipart_id).limit(limit)
    return [MultipartRow(*row) for row in await connection.execute(query)]


async def postpone_left(connection: AsyncConnection, app_id: str, store: str, next_attempt_ns: int) -> None:
    """The store did not confirm."""
    update = sa.update(multiparts).where(
        _is_left(), multiparts.c.app_id == app_id, multiparts.c.store == store
    )
    await connection.execute(update.values(next_attempt_ns=next_attempt_ns))


async def hasten_left(connection: AsyncConnection) -> None:
    """Stores may be mended: all are due."""
    await connection.execute(sa.update(multiparts).where(_is_left()).values(next_attempt_ns=None))


async def ids_of_key(connection: AsyncConnection, store: str, object_key: str) -> frozenset[str]:
    """The `upload_id`s of the multiparts that go on under a key."""
    query = sa.select(multiparts.c.upload_id).where(
        multiparts.c.store == store, multiparts.c.object_key == object_key, sa.not_(_is_left())
    )
    return frozenset((await connection.scalars(query)).all())


def _is_left() -> sa.ColumnElement[bool]:
    """Marked so, or of a file that is not uploaded (any more)."""
    wanted = sa.select(segments.c.file_id).where(
        segments.c.file_id == multiparts.c.file_id, segments.c.state <= _UPLOADING
    )
    return sa.or_(multiparts.c.is_left, sa.not_(wanted.exists()))
