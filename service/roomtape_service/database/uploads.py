"""Segments on their way from the spool to their store, as rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database import multiparts
from roomtape_service.database import removals as removal_rows
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.tables import removals, segments
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.rules.naming import numbered

__all__ = [
    "begin_upload",
    "delay_upload",
    "due_segments",
    "earliest_uploads",
    "finish_upload",
    "forget_spool_file",
    "hasten_uploads",
    "move_to_store",
    "postpone_uploads",
    "stored_on_spool",
]

_COLUMNS = tuple(segments.c[field.name] for field in fields(SegmentRow))

_UPLOADING = segment_pb2.SEGMENT_STATE_UPLOADING
_UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED
_STORED = (_UPLOADED, segment_pb2.SEGMENT_STATE_DELETED, segment_pb2.SEGMENT_STATE_EXPIRED)

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_WAITING = sa.and_(sa.text("segments.state < 4"), segments.c.state >= segment_pb2.SEGMENT_STATE_SPOOLED)
_DONE_ON_SPOOL = sa.text("segments.state >= 4 AND segments.spool_path IS NOT NULL")
_DUE_NS = sa.func.coalesce(segments.c.next_attempt_ns, 0)


async def earliest_uploads(connection: AsyncConnection) -> Mapping[str, int]:
    """For each application with waiting segments, when the first of them is due; 0 means now."""
    query = sa.select(segments.c.app_id, sa.func.min(_DUE_NS)).where(_WAITING).group_by(segments.c.app_id)
    return {row[0]: row[1] for row in await connection.execute(query)}


async def due_segments(
    connection: AsyncConnection, app_id: str, now_ns: int, *, without: Collection[str], limit: int
) -> Sequence[SegmentRow]:
    """The application's SPOOLED and UPLOADING segments whose next attempt is due, longest due first.

    `without` are the ids of those that are in hand already.
    """
    query = sa.select(*_COLUMNS).where(_WAITING, segments.c.app_id == app_id, now_ns >= _DUE_NS)
    if without:
        query = query.where(segments.c.file_id.not_in(without))
    query = query.order_by(_DUE_NS, segments.c.start_ns, segments.c.file_id).limit(limit)
    return [SegmentRow(*row) for row in await connection.execute(query)]


async def begin_upload(connection: AsyncConnection, file_id: str) -> bool:
    """SPOOLED → UPLOADING, if it is not yet. False when the file was given up."""
    result = await connection.execute(
        sa.update(segments).where(segments.c.file_id == file_id, _WAITING).values(state=_UPLOADING)
    )
    return result.rowcount == 1


async def move_to_store(unit: UnitOfWork, row: SegmentRow, store: str, object_key: str) -> str:
    """The segment goes to another store than it was meant for, under `object_key` or its first free number.

    What an attempt whose answer was lost may have left in the other store is removed from there. Returns the key.
    """
    connection = unit.connection
    n = 1
    while True:
        key = numbered(object_key, n)
        taken = sa.and_(segments.c.store == store, segments.c.object_key == key)
        # Whatever is to be removed under a key is removed at some time.
        doomed = sa.and_(removals.c.store == store, removals.c.object_key == key)
        is_taken = sa.or_(sa.exists().where(taken), sa.exists().where(doomed))
        if not await connection.scalar(sa.select(is_taken)):
            break
        n += 1
    update = sa.update(segments).where(segments.c.file_id == row.file_id)
    await connection.execute(update.values(store=store, object_key=key))
    await multiparts.leave(connection, row.file_id)
    if row.state == _UPLOADING:
        await removal_rows.add(unit, row.app_id, row.store, row.object_key)
    return key


async def delay_upload(connection: AsyncConnection, file_id: str, next_attempt_ns: int) -> bool:
    """An attempt failed; the next is due at `next_attempt_ns`. False when the file was given up meanwhile."""
    result = await connection.execute(
        sa.update(segments)
        .where(segments.c.file_id == file_id, _WAITING)
        .values(upload_attempts=segments.c.upload_attempts + 1, next_attempt_ns=next_attempt_ns)
    )
    return result.rowcount == 1


async def postpone_uploads(
    connection: AsyncConnection, file_ids: Sequence[str], next_attempt_ns: int
) -> None:
    """No attempt was made; the next is due at `next_attempt_ns`."""
    await connection.execute(
        sa.update(segments).where(segments.c.file_id.in_(file_ids)).values(next_attempt_ns=next_attempt_ns)
    )


async def finish_upload(
    connection: AsyncConnection, file_id: str, url: str, expire_ns: int | None = None
) -> bool:
    """UPLOADING → UPLOADED: the store confirmed size and checksum. The spool file still stands.

    False when the file was given up meanwhile: it stays what it is.
    """
    result = await connection.execute(
        sa.update(segments)
        .where(segments.c.file_id == file_id, segments.c.state == _UPLOADING)
        .values(
            state=_UPLOADED,
            url=url,
            expire_ns=expire_ns,
            upload_attempts=segments.c.upload_attempts + 1,
            next_attempt_ns=None,
        )
    )
    return result.rowcount == 1


async def hasten_uploads(connection: AsyncConnection, app_id: str) -> None:
    """All waiting segments of the application are due now."""
    await connection.execute(
        sa.update(segments).where(_WAITING, segments.c.app_id == app_id).values(next_attempt_ns=None)
    )


async def stored_on_spool(connection: AsyncConnection) -> Sequence[SegmentRow]:
    """Segments that are, or were, in a store and whose spool file was not removed yet."""
    query = sa.select(*_COLUMNS).where(_DONE_ON_SPOOL, segments.c.state.in_(_STORED))
    return [SegmentRow(*row) for row in await connection.execute(query)]


async def forget_spool_file(connection: AsyncConnection, file_id: str) -> None:
    """The spool file of an UPLOADED segment was removed."""
    await connection.execute(sa.update(segments).where(segments.c.file_id == file_id).values(spool_path=None))
