"""What the death of a node may have cost in media that nobody sends again.

Who comes back sends again what was not acknowledged; what they do not, their track tells. For who does not come back,
the time from the end of the segment that was interrupted to the node's return is told as a GAP when they leave the
room, in each recording that had them: nobody knows whether they spoke. On a MEDIA clock nobody knows how much time that
was: INTERRUPTED says that something is missing. For recordings of stopped tasks see `unended`.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, room_pb2, task_pb2
from roomtape_service.database import rooms as room_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database.gaps import GapRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.tasks import TaskRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.recording.front.recording import FeedRecording
from roomtape_service.rooms.room import LiveRoom
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.telling import tell_gap

__all__ = ["expect_back", "tell_unfinished"]

_REASON = event_pb2.GAP_REASON_INTERRUPTED


async def expect_back(
    task: task_pb2.Task, room: LiveRoom, recordings: Sequence[FeedRecording], connection: AsyncConnection
) -> None:
    """Has the room tell what is missing of each participant, should they never come back."""
    if room.clock == room_pb2.ROOM_CLOCK_MEDIA:
        return
    for recording in recordings:
        recording_id = recording.facts.recording_id
        interrupted = await _interrupted(connection, recording_id)
        if interrupted is None or interrupted.end_ns is None:
            continue
        for who in room.participants.values():
            keys = {track.key for track in who.tracks.values()}
            if who.lost_at_ns is None or not keys.intersection(recording.tracks, recording.resume):
                continue
            gap = GapRow(task.task_id, recording_id, who.user_id, interrupted.end_ns, who.lost_at_ns, _REASON)
            who.unless_back.append(partial(_tell, task, gap))


async def tell_unfinished(uow: UnitOfWork, task: TaskRow, recording: RecordingRow) -> None:
    """A recording whose stop noted nothing ends where it was interrupted: up to the stop it may lack something."""
    room = await room_rows.find_room(uow.connection, task.room_key)
    interrupted = await _interrupted(uow.connection, recording.recording_id)
    if interrupted is None or interrupted.end_ns is None or task.stop_ns is None:
        return
    if room.clock != room_pb2.ROOM_CLOCK_MEDIA:
        gap = GapRow(
            task.task_id,
            recording.recording_id,
            recording.user_id,
            interrupted.end_ns,
            task.stop_ns,
            _REASON,
        )
        await tell_gap(uow, task_proto(task), gap)


async def _tell(task: task_pb2.Task, gap: GapRow, uow: UnitOfWork) -> None:
    await tell_gap(uow, task, gap)


async def _interrupted(connection: AsyncConnection, recording_id: str) -> SegmentRow | None:
    """The newest segment, if it was interrupted: nothing came after it."""
    rows = [
        each for each in await segment_rows.segments_of_recording(connection, recording_id) if not each.joined
    ]
    return rows[-1] if rows and rows[-1].interrupted else None
