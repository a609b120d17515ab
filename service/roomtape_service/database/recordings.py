"""Recordings as rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import recordings

__all__ = [
    "RecordingRow",
    "end_recording",
    "find_recording",
    "insert_recording",
    "recordings_of_task",
    "stop_recordings",
]


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A row of `recordings`; `user_id` is empty for the mix; times in UTC nanoseconds.

    `came` is JSON: by track, the newest sequence that had come when the task was stopped, where that was not safe yet.
    None of a recording that was not stopped.
    """

    recording_id: str
    task_id: str
    app_id: str
    kind: int
    user_id: str
    start_ns: int
    end_ns: int | None
    came: str | None = None

    @property
    def came_until(self) -> Mapping[str, int]:
        """`came` as it is meant; empty of a recording that was not stopped."""
        return {str(key): int(sequence) for key, sequence in json.loads(self.came or "{}").items()}


_COLUMNS = (
    recordings.c.recording_id,
    recordings.c.task_id,
    recordings.c.app_id,
    recordings.c.kind,
    recordings.c.user_id,
    recordings.c.start_ns,
    recordings.c.end_ns,
    recordings.c.came,
)


async def insert_recording(connection: AsyncConnection, row: RecordingRow) -> None:
    """A recording begins."""
    await connection.execute(
        sa.insert(recordings).values(
            recording_id=row.recording_id,
            task_id=row.task_id,
            app_id=row.app_id,
            kind=row.kind,
            user_id=row.user_id,
            start_ns=row.start_ns,
        )
    )


async def end_recording(connection: AsyncConnection, recording_id: str, end_ns: int) -> bool:
    """Marks a recording's end; False when it had ended before."""
    condition = sa.and_(recordings.c.recording_id == recording_id, recordings.c.end_ns.is_(None))
    result = await connection.execute(sa.update(recordings).where(condition).values(end_ns=end_ns))
    return result.rowcount == 1


async def stop_recordings(
    connection: AsyncConnection, task_id: str, came: Mapping[str, Mapping[str, int]]
) -> None:
    """A task's recordings are to end with what has come; `came`, by recording, as `RecordingRow` has it."""
    running = sa.and_(recordings.c.task_id == task_id, recordings.c.end_ns.is_(None))
    await connection.execute(sa.update(recordings).where(running).values(came="{}"))
    for recording_id, sequences in came.items():
        chosen = recordings.c.recording_id == recording_id
        await connection.execute(sa.update(recordings).where(chosen).values(came=json.dumps(dict(sequences))))


async def find_recording(connection: AsyncConnection, recording_id: str) -> RecordingRow | None:
    """The recording with this id."""
    query = sa.select(*_COLUMNS).where(recordings.c.recording_id == recording_id)
    row = (await connection.execute(query)).first()
    return RecordingRow(*row) if row else None


async def recordings_of_task(connection: AsyncConnection, task_id: str) -> Sequence[RecordingRow]:
    """All recordings of a task, oldest first."""
    query = sa.select(*_COLUMNS).where(recordings.c.task_id == task_id)
    query = query.order_by(recordings.c.start_ns, recordings.c.recording_id)
    return [RecordingRow(*row) for row in await connection.execute(query)]
