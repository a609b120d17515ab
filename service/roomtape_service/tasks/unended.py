"""Recordings of stopped tasks that their node did not live to end.

They go on where they were, take what had come before the stop, and end:

1. Who comes back sends that again, and who had left is kept on disk.
2. Who left without having been told that all is safe comes again, soon: they and those who are expected back are waited
   for as long as a broken connection is.
3. What does not come is told as a GAP. On a MEDIA clock nobody knows how much time that was: INTERRUPTED says that
   something is missing.
"""

import asyncio
import functools
import json
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, room_pb2
from roomtape_service.clock import Clock
from roomtape_service.database import applications as application_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import rooms as room_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database.database import Database
from roomtape_service.database.gaps import GapRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.tasks import TaskRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.recording import FeedRecording
from roomtape_service.recording.protocol import Resume
from roomtape_service.rooms.room import LiveRoom, user_of
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rules.profiles import profile_of
from roomtape_service.tasks.completion import end_recording
from roomtape_service.tasks.outages import tell_unfinished
from roomtape_service.tasks.task import LiveTask, task_proto
from roomtape_service.tasks.tasks import Tasks
from roomtape_service.tasks.telling import tell_gap

__all__ = ["Unended", "load_resume_points"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Unended:
    task: TaskRow
    row: RecordingRow
    room: LiveRoom
    recording: FeedRecording
    ended_ns: int
    """Where the last segment of it ends."""


class Unended:
    """Takes them up when a node starts, and lets each end when it has all, or all that will come."""

    def __init__(
        self,
        database: Database,
        pool: WorkerPool,
        rooms: Rooms,
        tasks: Tasks,
        clock: Clock,
        *,
        wait_ns: int,
        interval_seconds: float = 1.0,
    ) -> None:
        """`wait_ns`: how long publishers are waited for who have not come back."""
        self._database = database
        self._pool = pool
        self._rooms = rooms
        self._tasks = tasks
        self._clock = clock
        self._wait_ns = wait_ns
        self._interval_seconds = interval_seconds
        self._closed: dict[str, LiveRoom] = {}
        self._taken: list[_Unended] = []
        self._waiting: list[_Unended] = []

    async def take_up(self, task: TaskRow) -> None:
        """Puts what has not ended of a stopped task into its room's feed, before there are workers.

        After the room was taken up, and before those who left it. Raises what the database raises.
        """
        rows = await self._database.read(lambda c: recording_rows.recordings_of_task(c, task.task_id))
        unended = [row for row in rows if row.end_ns is None]
        room = await self._room(task.room_key) if unended else None
        if room is None or room.epoch_ns is None:
            await self._finish(task, unended)
            return
        application = await self._database.read(lambda c: application_rows.get(c, task.app_id))
        live = LiveTask(room.room_key, task_proto(task), profile_of(application.profile), task.start_ns)
        for row in unended:
            recording = FeedRecording(self._tasks.facts_of(live, room, row))
            await self._database.read(functools.partial(load_resume_points, row, recording))
            lacking = _lacking(row, recording)
            recording.tracks = tuple(key for key in lacking if key in room.feed.tracks)
            room.feed.start_recording(recording)
            ended_ns = row.start_ns if recording.position_ns is None else recording.position_ns
            self._taken.append(_Unended(task, row, room, recording, ended_ns))

    async def settle(self) -> None:
        """After those who left were taken up: each ends now, or waits. What can't is told in the log."""
        taken, self._taken = self._taken, []
        for each in taken:
            try:
                await self._settle(each)
            except Exception:
                log.exception("unended_recording_failed", recording_id=each.row.recording_id)
        for room_key in self._closed:
            self._pool.close_room(room_key)
        self._closed.clear()

    async def run(self) -> None:
        """Looks from time to time who has all, until none is left or it is cancelled."""
        until_ns = self._clock.monotonic_ns() + self._wait_ns
        while self._waiting:
            await asyncio.sleep(self._interval_seconds)
            is_over = self._clock.monotonic_ns() >= until_ns
            for each in list(self._waiting):
                try:
                    await self._look(each, is_over)
                except Exception:
                    # It is tried again at the next look, and keeps no other waiting.
                    log.exception("unended_recording_failed", recording_id=each.row.recording_id)

    async def _room(self, room_key: str) -> LiveRoom | None:
        room = self._rooms.by_key(room_key) or self._closed.get(room_key)
        if room is None:
            row = await self._database.read(lambda c: room_rows.find_room(c, room_key))
            room = self._closed[room_key] = self._rooms.closed(row)
        return room

    async def _settle(self, each: _Unended) -> None:
        feed, recording, stop_ns = each.room.feed, each.recording, each.task.stop_ns or each.ended_ns
        recording_id = each.row.recording_id
        kept = {key for key in recording.tracks if feed.tracks[key].closed_at_ns is not None}
        lacking = {key: until for key, until in _lacking(each.row, recording).items() if key not in kept}
        if lacking and not each.room.closed:
            self._pool.register(feed, recording_id)
            feed.awaiting.add(recording_id, lacking, stop_ns)
            self._waiting.append(each)
            return
        await self._tell(each, lacking)
        if kept:
            self._pool.register(feed, recording_id)
            feed.stop_recording(recording_id, stop_ns)
        else:
            feed.forget_recording(recording_id)
            await self._finish(each.task, [each.row])

    async def _look(self, each: _Unended, is_over: bool) -> None:
        awaiting, recording_id = each.room.feed.awaiting, each.row.recording_id
        lost = set(awaiting.of(recording_id)) if is_over else awaiting.missed(recording_id)
        if lost:
            log.info("unended_recording_gives_up", recording_id=recording_id, tracks=len(lost))
            await self._tell(each, lost)
            for key in lost & set(awaiting.of(recording_id)):
                awaiting.end(recording_id, key)
        if not awaiting.of(recording_id):
            self._waiting.remove(each)

    async def _tell(self, each: _Unended, keys: Collection[str]) -> None:
        if not keys or each.room.clock == room_pb2.ROOM_CLOCK_MEDIA or each.task.stop_ns is None:
            return
        task, stop_ns, reason = task_proto(each.task), each.task.stop_ns, event_pb2.GAP_REASON_INTERRUPTED
        users = sorted({user_of(key) for key in keys})

        async def tell(uow: UnitOfWork) -> None:
            for user_id in users:
                gap = GapRow(task.task_id, each.row.recording_id, user_id, each.ended_ns, stop_ns, reason)
                await tell_gap(uow, task, gap)

        await self._database.write(tell)

    async def _finish(self, task: TaskRow, rows: Collection[RecordingRow]) -> None:
        async def finish(uow: UnitOfWork) -> None:
            for row in rows:
                if row.came is None:
                    # It was stopped by a version that did not note what had come.
                    await tell_unfinished(uow, task, row)
                await end_recording(uow, row.recording_id)

        if rows:
            await self._database.write(finish)


async def load_resume_points(
    row: RecordingRow, recording: FeedRecording, connection: AsyncConnection
) -> None:
    """Lets a recording go on behind its segments."""
    for segment in await segment_rows.segments_of_recording(connection, row.recording_id):
        resume = {key: Resume(*values) for key, values in json.loads(segment.resume).items()}
        end_ns = segment.end_ns if segment.end_ns is not None else segment.start_ns
        recording.continue_after(segment.segment_id, end_ns, resume)


def _lacking(row: RecordingRow, recording: FeedRecording) -> dict[str, int]:
    """Up to where the recording lacks which tracks; of a single the last, since it takes one at a time."""
    came = row.came_until.items()
    lacking = {key: until for key, until in came if until > recording.safe_sequence(key)}
    return dict(list(lacking.items())[-1:]) if recording.takes_one_track else lacking
