"""What there is of one application at present, read at once with the place of the log at which it was so."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.events import bounds
from roomtape_service.database.labels import tasks_labelled
from roomtape_service.database.participants import ParticipantRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.rooms import RoomRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.tables import participants, recordings, rooms, segments, tasks
from roomtape_service.database.tasks import TaskRow

__all__ = ["PresentState", "PresentTask", "Wanted", "present_state"]

# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_UNFINISHED = sa.text("tasks.state < 5")
_IS_UNSTORED = sa.text("segments.state < 4 AND segments.joined = 0")
_IS_OPEN = rooms.c.close_ns.is_(None)
_IS_PRESENT = sa.and_(participants.c.leave_ns.is_(None), _IS_OPEN)
# Rows that are taken in before the event loop has its turn.
_PORTION_ROWS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to read; every condition that is not empty must hold."""

    task_ids: Collection[str] = ()
    room_ids: Collection[str] = ()
    labels: Mapping[str, str]
    rooms: bool = True
    participants: bool = True
    tasks: bool = True
    recordings: bool = True
    segments: bool = True


@dataclass(frozen=True, slots=True)
class PresentTask:
    """A task with its recordings, and those segments of it that are in no store yet."""

    task: TaskRow
    recordings: Sequence[RecordingRow]
    segments: Mapping[str, Sequence[SegmentRow]]
    """By recording, in the order of number and container."""


@dataclass(frozen=True, slots=True)
class PresentState:
    """As it was after the event `sequence`, and before the next."""

    sequence: int
    rooms: Sequence[RoomRow]
    """By id."""
    participants: Mapping[str, Sequence[ParticipantRow]]
    """By key of their room, in the order in which they joined."""
    tasks: Sequence[PresentTask]
    """In the order in which they were started."""


async def present_state(connection: AsyncConnection, app_id: str, wanted: Wanted) -> PresentState:
    """For a scan. Open rooms, and who is in them, unless tasks or labels are asked for; tasks that have not ended, or
    that are asked for by id.

    Raises Refusal APPLICATION_NOT_FOUND.
    """
    ends = await bounds(connection, app_id)
    of_rooms = not wanted.task_ids and not wanted.labels
    return PresentState(
        ends.head,
        await _rooms(connection, app_id, wanted)
        if of_rooms and (wanted.rooms or wanted.participants)
        else (),
        await _participants(connection, app_id, wanted) if of_rooms and wanted.participants else {},
        await _tasks(connection, app_id, wanted)
        if wanted.tasks or wanted.recordings or wanted.segments
        else (),
    )


async def _rooms(connection: AsyncConnection, app_id: str, wanted: Wanted) -> Sequence[RoomRow]:
    query = sa.select(*_columns(RoomRow, rooms)).where(rooms.c.app_id == app_id, _IS_OPEN)
    if wanted.room_ids:
        query = query.where(rooms.c.room_id.in_(sorted(wanted.room_ids)))
    return [RoomRow(*row) async for row in _in_portions(connection, query.order_by(rooms.c.room_id))]


async def _participants(
    connection: AsyncConnection, app_id: str, wanted: Wanted
) -> Mapping[str, Sequence[ParticipantRow]]:
    query = sa.select(*_columns(ParticipantRow, participants))
    query = query.join(rooms, rooms.c.room_key == participants.c.room_key)
    query = query.where(rooms.c.app_id == app_id, _IS_PRESENT)
    if wanted.room_ids:
        query = query.where(rooms.c.room_id.in_(sorted(wanted.room_ids)))
    query = query.order_by(participants.c.join_ns, participants.c.participant_key)
    found: dict[str, list[ParticipantRow]] = {}
    async for row in _in_portions(connection, query):
        participant = ParticipantRow(*row)
        found.setdefault(participant.room_key, []).append(participant)
    return found


async def _tasks(connection: AsyncConnection, app_id: str, wanted: Wanted) -> Sequence[PresentTask]:
    condition = sa.and_(tasks.c.app_id == app_id, _is_wanted(app_id, wanted))
    ids = sa.select(tasks.c.task_id).where(condition)
    query = sa.select(*_columns(TaskRow, tasks)).where(condition).order_by(tasks.c.start_ns, tasks.c.task_id)
    rows = [TaskRow(*row) async for row in _in_portions(connection, query)]
    of_task: dict[str, list[RecordingRow]] = {}
    if wanted.recordings or wanted.segments:
        chosen = sa.select(*_columns(RecordingRow, recordings)).where(recordings.c.task_id.in_(ids))
        chosen = chosen.order_by(recordings.c.start_ns, recordings.c.recording_id)
        async for row in _in_portions(connection, chosen):
            recording = RecordingRow(*row)
            of_task.setdefault(recording.task_id, []).append(recording)
    of_recording: dict[str, dict[str, list[SegmentRow]]] = {}
    if wanted.segments:
        files = sa.select(*_columns(SegmentRow, segments)).where(segments.c.task_id.in_(ids), _IS_UNSTORED)
        files = files.order_by(segments.c.segment_id, segments.c.container)
        async for row in _in_portions(connection, files):
            segment = SegmentRow(*row)
            of_recording.setdefault(segment.task_id, {}).setdefault(segment.recording_id, []).append(segment)
    return [PresentTask(row, of_task.get(row.task_id, ()), of_recording.get(row.task_id, {})) for row in rows]


def _is_wanted(app_id: str, wanted: Wanted) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool] | sa.TextClause] = [
        tasks.c.task_id.in_(sorted(wanted.task_ids)) if wanted.task_ids else _IS_UNFINISHED
    ]
    if wanted.room_ids:
        conditions.append(tasks.c.room_id.in_(sorted(wanted.room_ids)))
    conditions += [
        tasks.c.task_id.in_(tasks_labelled(app_id, key, value)) for key, value in wanted.labels.items()
    ]
    return sa.and_(*conditions)


async def _in_portions(connection: AsyncConnection, query: sa.Select[Any]) -> AsyncIterator[Sequence[Any]]:
    result = await connection.stream(query, execution_options={"yield_per": _PORTION_ROWS})
    async for portion in result.partitions():
        for row in portion:
            yield row


def _columns(kind: type[Any], table: sa.Table) -> Sequence[sa.Column[Any]]:
    return [table.c[field.name] for field in fields(kind)]
