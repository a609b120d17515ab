"""Files that are joined of segments, as rows of `segments`: RECORDING while they are made."""

from collections.abc import Sequence
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database.segments import CompletedSegment, SegmentRow
from roomtape_service.database.tables import segments

__all__ = ["complete_joined", "find_joined", "spooled_joins", "unfinished_joins"]

_RECORDING = segment_pb2.SEGMENT_STATE_RECORDING
_SPOOLED = segment_pb2.SEGMENT_STATE_SPOOLED

_COLUMNS = tuple(segments.c[each.name] for each in fields(SegmentRow))

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_ALIVE = sa.text("segments.joined > 0 AND segments.state < 5")
_IS_UNSTORED = sa.text("segments.state < 4")


async def find_joined(
    connection: AsyncConnection, recording_id: str, first: int, container: int, count: int
) -> SegmentRow | None:
    """The file that these segments were joined into, or are to be; not one that is gone."""
    query = sa.select(*_COLUMNS).where(
        _IS_ALIVE,
        segments.c.recording_id == recording_id,
        segments.c.segment_id == first,
        segments.c.container == container,
        segments.c.joined == count,
    )
    row = (await connection.execute(query)).first()
    return SegmentRow(*row) if row else None


async def unfinished_joins(connection: AsyncConnection) -> Sequence[SegmentRow]:
    """Files that are still to be made, of all applications."""
    query = sa.select(*_COLUMNS).where(_IS_UNSTORED, segments.c.joined > 0, segments.c.state == _RECORDING)
    query = query.order_by(segments.c.app_id, segments.c.start_ns, segments.c.file_id)
    return [SegmentRow(*row) for row in await connection.execute(query)]


async def spooled_joins(connection: AsyncConnection) -> Sequence[str]:
    """Where files lie that are made, and not done with."""
    query = sa.select(segments.c.spool_path).where(
        segments.c.joined > 0, segments.c.spool_path.is_not(None), _IS_UNSTORED
    )
    done = sa.select(segments.c.spool_path).where(
        segments.c.joined > 0, sa.text("segments.state >= 4 AND segments.spool_path IS NOT NULL")
    )
    return [path for each in (query, done) for path in await connection.scalars(each) if path]


async def complete_joined(
    connection: AsyncConnection, file_id: str, spool_path: str, facts: CompletedSegment
) -> bool:
    """RECORDING → SPOOLED: the file is made. False when it is not wanted any more."""
    values: dict[str, object] = {each.name: getattr(facts, each.name) for each in fields(CompletedSegment)}
    values |= {"state": _SPOOLED, "spool_path": spool_path}
    update = sa.update(segments).where(segments.c.file_id == file_id, segments.c.state == _RECORDING)
    return (await connection.execute(update.values(values))).rowcount == 1
