"""Everything that is known of one task, read at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.gaps import GapRow, InterruptionRow, gaps_of_task, interruptions_of_task
from roomtape_service.database.participants import MuteRow, PresenceRow, mutes_of_room, presences_of_room
from roomtape_service.database.recordings import RecordingRow, recordings_of_task
from roomtape_service.database.rooms import RoomRow, find_room
from roomtape_service.database.scopes import ScopeRow, scopes_of_task
from roomtape_service.database.segments import SegmentRow, files_of_task
from roomtape_service.database.tasks import TaskRow, find_task

__all__ = ["TaskHistory", "history_of_task"]


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """A task with all that belongs to it, each in the order of its reader."""

    task: TaskRow
    room: RoomRow
    scopes: Sequence[ScopeRow]
    presences: Sequence[PresenceRow]
    """Of the whole room, whenever they were there."""
    mutes: Sequence[MuteRow]
    recordings: Sequence[RecordingRow]
    segments: Sequence[SegmentRow]
    joined: Sequence[SegmentRow]
    """Files that were joined of segments."""
    gaps: Sequence[GapRow]
    interruptions: Sequence[InterruptionRow]


async def history_of_task(connection: AsyncConnection, app_id: str, task_id: str) -> TaskHistory:
    """For a scan. Raises LookupError for a task that the application does not have."""
    task = await find_task(connection, app_id, task_id)
    if task is None:
        raise LookupError(f"application {app_id!r} has no task {task_id!r}")
    room = await find_room(connection, task.room_key)
    files = await files_of_task(connection, task_id)
    return TaskHistory(
        task=task,
        room=room,
        scopes=await scopes_of_task(connection, task_id),
        presences=await presences_of_room(connection, task.room_key),
        mutes=await mutes_of_room(connection, task.room_key),
        recordings=await recordings_of_task(connection, task_id),
        segments=[file for file in files if not file.joined],
        joined=[file for file in files if file.joined],
        gaps=await gaps_of_task(connection, task_id),
        interruptions=await interruptions_of_task(connection, task_id),
    )
