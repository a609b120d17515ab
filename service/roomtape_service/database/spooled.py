"""Files that lie on the spool, or should, as rows: what recovery compares with what it finds."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database.segments import CompletedSegment
from roomtape_service.database.tables import multiparts, segments

__all__ = [
    "KnownFile",
    "known_files",
    "lose_file",
    "move_file",
    "shorten_file",
    "unsettled_recordings",
]

_BATCH = 500
"""SQLite takes some thousand values in a statement."""

_RECORDING = segment_pb2.SEGMENT_STATE_RECORDING
_LOST = segment_pb2.SEGMENT_STATE_LOST
_ON_SPOOL = (segment_pb2.SEGMENT_STATE_SPOOLED, segment_pb2.SEGMENT_STATE_UPLOADING)

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_UNSTORED = sa.text("segments.state < 4")
_IS_SEGMENT = sa.text("segments.joined = 0")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of a segment."""

    recording_id: str
    segment_id: int
    container: int
    state: int
    spool_path: str | None
    size_bytes: int


async def known_files(connection: AsyncConnection, recording_ids: Collection[str]) -> Sequence[KnownFile]:
    """All files of these recordings' segments."""
    ids = sorted(recording_ids)
    found: list[KnownFile] = []
    columns = tuple(segments.c[field.name] for field in fields(KnownFile))
    for at in range(0, len(ids), _BATCH):
        query = sa.select(*columns).where(segments.c.recording_id.in_(ids[at : at + _BATCH]), _IS_SEGMENT)
        found += [KnownFile(*row) for row in await connection.execute(query)]
    return found


async def unsettled_recordings(connection: AsyncConnection) -> Sequence[str]:
    """Recordings with a file that is in no store yet, and was not given up."""
    query = sa.select(segments.c.recording_id).where(_UNSTORED, _IS_SEGMENT).distinct()
    return [row[0] for row in await connection.execute(query)]


async def lose_file(connection: AsyncConnection, file_id: str, end_ns: int) -> bool:
    """RECORDING, SPOOLED or UPLOADING → LOST. False when it is none of these."""
    condition = sa.and_(segments.c.file_id == file_id, segments.c.state.in_((_RECORDING, *_ON_SPOOL)))
    result = await connection.execute(
        sa.update(segments)
        .where(condition)
        .values(
            state=_LOST,
            spool_path=None,
            interrupted=True,
            next_attempt_ns=None,
            end_ns=sa.func.coalesce(segments.c.end_ns, end_ns),
        )
    )
    if result.rowcount == 1:
        await _leave_parts(connection, file_id)
    return result.rowcount == 1


async def shorten_file(connection: AsyncConnection, file_id: str, facts: CompletedSegment) -> bool:
    """A complete file was damaged, and is what `facts` say now. False when it is not SPOOLED or UPLOADING.

    Where the recording stands with its tracks stays as it was: they were told that all of it is safe.
    """
    condition = sa.and_(segments.c.file_id == file_id, segments.c.state.in_(_ON_SPOOL))
    result = await connection.execute(
        sa.update(segments)
        .where(condition)
        .values(
            end_ns=facts.end_ns,
            duration_ns=facts.duration_ns,
            sample_count=facts.sample_count,
            size_bytes=facts.size_bytes,
            sha256=facts.sha256,
            interrupted=True,
            statistics=facts.statistics,
            next_attempt_ns=None,
        )
    )
    if result.rowcount == 1:
        await _leave_parts(connection, file_id)
    return result.rowcount == 1


async def move_file(connection: AsyncConnection, file_id: str, spool_path: str) -> None:
    """The file is elsewhere now: the spool was moved."""
    await connection.execute(
        sa.update(segments).where(segments.c.file_id == file_id).values(spool_path=spool_path)
    )


async def _leave_parts(connection: AsyncConnection, file_id: str) -> None:
    """Parts that a store has are of the file as it was."""
    await connection.execute(
        sa.update(multiparts)
        .where(multiparts.c.file_id == file_id)
        .values(is_left=True, next_attempt_ns=None)
    )
