"""Segments as rows: one for each file, from its first byte on the spool to its place in a store.

Functions that change a row move its state along the edges of `states` only; the database refuses any other. Files that
were joined of segments are rows beside them (`database.joined`): they are in no list here but that of the library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import media_pb2, segment_pb2
from roomtape_service.database.labels import tasks_labelled
from roomtape_service.database.tables import segments
from roomtape_service.rules.naming import numbered

__all__ = [
    "CompletedSegment",
    "SegmentFilter",
    "SegmentRow",
    "StartedSegment",
    "abandoned_on_spool",
    "complete_segment",
    "expired_segments",
    "files_of_task",
    "find_segment",
    "has_unstored_segments",
    "insert_segment",
    "list_stored_segments",
    "segment_message",
    "segments_of_recording",
    "segments_of_task",
    "set_state",
    "stored_segments",
]

_RECORDING = segment_pb2.SEGMENT_STATE_RECORDING
_SPOOLED = segment_pb2.SEGMENT_STATE_SPOOLED
_UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_SEGMENT = sa.text("segments.joined = 0")
_HAS_OBJECT = sa.text("segments.object_key <> ''")
_IS_STORED = sa.text("segments.state = 4")
_DONE_ON_SPOOL = sa.text("segments.state >= 4 AND segments.spool_path IS NOT NULL")
_CAN_EXPIRE = sa.text("segments.state = 4 AND segments.expire_ns IS NOT NULL")
_PORTION_ROWS = 250
_AFTER_EVERY_KEY = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class StartedSegment:
    """A file that was begun; times in UTC nanoseconds. `object_key` is a wish: see `insert_segment`."""

    file_id: str
    recording_id: str
    task_id: str
    app_id: str
    room_id: str
    kind: int
    user_id: str
    segment_id: int
    container: int
    codec: int
    spool_path: str | None
    """None for a file that is still to be joined."""
    store: str
    """Identity of the store that it will go to, as `storage.store.Store.identity`."""
    object_key: str
    start_ns: int
    sample_rate: int
    channels: int
    joined: int = 0
    """As in SegmentRow."""


@dataclass(frozen=True, slots=True)
class CompletedSegment:
    """What is known of a file when it is complete on the spool. `resume` is a JSON object."""

    start_ns: int
    end_ns: int
    duration_ns: int
    sample_rate: int
    channels: int
    sample_count: int
    encoder_delay: int
    size_bytes: int
    sha256: str
    interrupted: bool
    statistics: bytes
    resume: str


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A row of `segments`; times in UTC nanoseconds; `statistics` a serialized FrameStatistics."""

    file_id: str
    recording_id: str
    task_id: str
    app_id: str
    room_id: str
    kind: int
    user_id: str
    segment_id: int
    container: int
    codec: int
    state: int
    spool_path: str | None
    object_key: str
    url: str
    store: str
    start_ns: int
    end_ns: int | None
    duration_ns: int
    sample_rate: int
    channels: int
    sample_count: int
    encoder_delay: int
    size_bytes: int
    sha256: str
    interrupted: bool
    statistics: bytes | None
    resume: str
    upload_attempts: int
    next_attempt_ns: int | None
    expire_ns: int | None
    joined: int
    """How many segments, from `segment_id` on, were joined into this file; 0 for a segment itself."""


_COLUMNS = tuple(segments.c[each.name] for each in fields(SegmentRow))


@dataclass(frozen=True, slots=True)
class SegmentFilter:
    """Which files; every condition that is set must hold. Times in UTC nanoseconds."""

    key_prefix: str = ""
    room_id: str = ""
    user_id: str = ""
    task_id: str = ""
    ends_after_ns: int | None = None
    starts_before_ns: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the task."""


async def insert_segment(connection: AsyncConnection, segment: StartedSegment) -> str:
    """A file is begun. Returns its object key: the wished one, or its first free number in the store."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {each.name: getattr(segment, each.name) for each in fields(StartedSegment)}
    n = 1
    while True:
        key = numbered(segment.object_key, n)
        statement = (
            insert(segments)
            .values(values | {"object_key": key, "state": _RECORDING})
            .on_conflict_do_nothing(
                index_elements=["store", "object_key"], index_where=sa.text("object_key <> ''")
            )
        )
        if (await connection.execute(statement)).rowcount == 1:
            return key
        n += 1


async def complete_segment(connection: AsyncConnection, file_id: str, facts: CompletedSegment) -> bool:
    """RECORDING → SPOOLED: the file is complete. False when it was complete before, or never began."""
    values = {each.name: getattr(facts, each.name) for each in fields(CompletedSegment)}
    condition = sa.and_(segments.c.file_id == file_id, segments.c.state == _RECORDING)
    result = await connection.execute(
        sa.update(segments).where(condition).values(values | {"state": _SPOOLED})
    )
    return result.rowcount == 1


async def find_segment(connection: AsyncConnection, app_id: str, file_id: str) -> SegmentRow | None:
    """The application's file with this id."""
    condition = sa.and_(segments.c.file_id == file_id, segments.c.app_id == app_id)
    row = (await connection.execute(sa.select(*_COLUMNS).where(condition))).first()
    return SegmentRow(*row) if row else None


async def segments_of_task(connection: AsyncConnection, task_id: str) -> Sequence[SegmentRow]:
    """All segments of a task, by recording, number and container."""
    return await _by_number(connection, segments.c.task_id == task_id)


async def files_of_task(connection: AsyncConnection, task_id: str) -> Sequence[SegmentRow]:
    """All segments of a task, and the files that were joined of them, by recording, number and container.

    For a scan: however many they are, the event loop goes on between portions of them.
    """
    query = sa.select(*_COLUMNS).where(segments.c.task_id == task_id)
    query = query.order_by(
        segments.c.recording_id, segments.c.segment_id, segments.c.container, segments.c.joined
    )
    result = await connection.stream(query, execution_options={"yield_per": _PORTION_ROWS})
    return [SegmentRow(*row) async for portion in result.partitions() for row in portion]


async def segments_of_recording(
    connection: AsyncConnection, recording_id: str, segment_id: int | None = None
) -> Sequence[SegmentRow]:
    """All segments of a recording, or those of one number, by number and container."""
    condition = segments.c.recording_id == recording_id
    if segment_id is not None:
        condition = sa.and_(condition, segments.c.segment_id == segment_id)
    return await _by_number(connection, condition)


async def has_unstored_segments(connection: AsyncConnection, task_id: str) -> bool:
    """Whether a segment of the task is neither UPLOADED nor given up."""
    condition = sa.and_(segments.c.task_id == task_id, segments.c.state < _UPLOADED, _IS_SEGMENT)
    return bool(await connection.scalar(sa.select(sa.exists().where(condition))))


async def set_state(
    connection: AsyncConnection, file_id: str, state: segment_pb2.SegmentState.ValueType
) -> None:
    """Moves a file along an edge of the state table; the database refuses any other."""
    await connection.execute(sa.update(segments).where(segments.c.file_id == file_id).values(state=state))


async def expired_segments(connection: AsyncConnection, now_ns: int, limit: int) -> Sequence[SegmentRow]:
    """UPLOADED files of all applications whose retention is over, the longest ago first."""
    query = sa.select(*_COLUMNS).where(_CAN_EXPIRE, segments.c.expire_ns <= now_ns)
    query = query.order_by(segments.c.expire_ns).limit(limit)
    return [SegmentRow(*row) for row in await connection.execute(query)]


async def abandoned_on_spool(connection: AsyncConnection) -> Sequence[SegmentRow]:
    """ABANDONED files whose media was not moved aside yet."""
    abandoned = segments.c.state == segment_pb2.SEGMENT_STATE_ABANDONED
    return [
        SegmentRow(*row)
        for row in await connection.execute(sa.select(*_COLUMNS).where(_DONE_ON_SPOOL, abandoned))
    ]


async def is_taken_away(connection: AsyncConnection, store: str, object_key: str) -> bool:
    """Whether the object is that of a file which was deleted, or expired."""
    condition = sa.and_(
        _HAS_OBJECT,
        segments.c.store == store,
        segments.c.object_key == object_key,
        segments.c.state > _UPLOADED,
    )
    return bool(await connection.scalar(sa.select(sa.exists().where(condition))))


async def list_stored_segments(
    connection: AsyncConnection,
    app_id: str,
    wanted: SegmentFilter,
    *,
    after: tuple[int, str] | None = None,
    limit: int,
) -> Sequence[SegmentRow]:
    """UPLOADED files, oldest first, after `after` (start_ns and id of the last of the page before)."""
    query = stored_segments(connection.dialect.name, app_id, wanted, after=after, limit=limit)
    return [SegmentRow(*row) for row in await connection.execute(query)]


def stored_segments(
    dialect: str, app_id: str, wanted: SegmentFilter, *, after: tuple[int, str] | None, limit: int
) -> sa.Select[Any]:
    """The query of `list_stored_segments`, for the database that SQLAlchemy names so."""
    query = sa.select(*_COLUMNS).where(segments.c.app_id == app_id, _IS_STORED)
    if wanted.key_prefix:
        query = query.where(*_starts_with(dialect, wanted.key_prefix))
    for key, value in wanted.labels.items():
        query = query.where(segments.c.task_id.in_(tasks_labelled(app_id, key, value)))
    if wanted.room_id:
        query = query.where(segments.c.room_id == wanted.room_id)
    if wanted.user_id:
        query = query.where(segments.c.user_id == wanted.user_id)
    if wanted.task_id:
        query = query.where(segments.c.task_id == wanted.task_id)
    if wanted.ends_after_ns is not None:
        query = query.where(segments.c.end_ns > wanted.ends_after_ns)
    if wanted.starts_before_ns is not None:
        query = query.where(segments.c.start_ns < wanted.starts_before_ns)
    if after is not None:
        query = query.where(sa.tuple_(segments.c.start_ns, segments.c.file_id) > sa.tuple_(*after))
    return query.order_by(segments.c.start_ns, segments.c.file_id).limit(limit)


def segment_message(row: SegmentRow) -> segment_pb2.Segment:
    """The row as the API shows it."""
    message = segment_pb2.Segment(
        file_id=row.file_id,
        recording_id=row.recording_id,
        task_id=row.task_id,
        room_id=row.room_id,
        kind=segment_pb2.RecordingKind.ValueType(row.kind),
        user_id=row.user_id,
        segment_id=row.segment_id,
        container=media_pb2.Container.ValueType(row.container),
        codec=media_pb2.Codec.ValueType(row.codec),
        state=segment_pb2.SegmentState.ValueType(row.state),
        object_key=row.object_key,
        # It stays in the row, to say where the object was.
        url=row.url if row.state == _UPLOADED else "",
        store=row.store,
        joined_segments=row.joined,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        sample_rate_hz=row.sample_rate,
        channels=row.channels,
        sample_count=row.sample_count,
        encoder_delay_samples=row.encoder_delay,
        interrupted=row.interrupted,
    )
    message.start_time.FromNanoseconds(row.start_ns)
    if row.end_ns is not None:
        message.end_time.FromNanoseconds(row.end_ns)
        message.duration.FromNanoseconds(row.duration_ns)
    if row.expire_ns is not None:
        message.expire_time.FromNanoseconds(row.expire_ns)
    if row.statistics is not None:
        message.statistics.ParseFromString(row.statistics)
    return message


async def _by_number(connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> Sequence[SegmentRow]:
    query = sa.select(*_COLUMNS).where(condition, _IS_SEGMENT)
    query = query.order_by(segments.c.recording_id, segments.c.segment_id, segments.c.container)
    return [SegmentRow(*row) for row in await connection.execute(query)]


def _starts_with(dialect: str, prefix: str) -> Sequence[sa.ColumnElement[bool]]:
    """What an index finds: bytes between two bounds, whatever the database's collation is."""
    key, after = segments.c.object_key, prefix + _AFTER_EVERY_KEY
    if dialect == "postgresql":
        return key.op("~>=~", is_comparison=True)(prefix), key.op("~<~", is_comparison=True)(after)
    return key >= prefix, key < after
