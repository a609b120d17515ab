"""What a node takes up again when it starts: rooms, participants, tasks and recordings of the node before it."""

from collections import defaultdict
from functools import partial

import structlog

from roomtape.v1 import task_pb2
from roomtape_service.clock import NANOSECONDS, SteadyClock
from roomtape_service.clock_anchor import ClockAnchor
from roomtape_service.database import applications as application_rows
from roomtape_service.database import participants as participant_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import rooms as room_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.tasks import TaskRow
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.recording import FeedRecording
from roomtape_service.rooms.membership import audio_tracks
from roomtape_service.rooms.room import LiveRoom
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rules.profiles import profile_of
from roomtape_service.rules.scope import desired_recordings
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.outages import expect_back
from roomtape_service.tasks.task import LiveTask, task_proto
from roomtape_service.tasks.tasks import Tasks, recording_key
from roomtape_service.tasks.unended import Unended, load_resume_points

__all__ = ["restore"]

_NEWS_NS = NANOSECONDS // 10
"""Two processes read the machine's clocks a little apart."""

log = structlog.get_logger(__name__)


async def restore(
    database: Database,
    pool: WorkerPool,
    facts: Facts,
    rooms: Rooms,
    tasks: Tasks,
    unended: Unended,
    clock: SteadyClock,
    anchor: ClockAnchor | None,
) -> None:
    """Finishes what the last node left, and goes on with what it was doing.

    1. The clock: if the machine's was set, the time of rooms that are recorded goes on from where it was, as the last
       node's `anchor` says. Behind what is recorded there is no place for anything.
    2. The spool, which knows more of the last second than the database.
    3. Rooms and the participants who may come back.
    4. Tasks, running and stopped, their recordings at their resume points.
    5. Those who left, as far as some recording lacks them; then stopped recordings that lack nothing end.

    What can't be taken up of these is told in the log, and keeps nothing else from going on.
    """
    if reached_ns := await database.read(room_rows.reached_ns):
        moved_ns = clock.go_on(reached_ns, anchor.now_ns() if anchor else None)
        if abs(moved_ns) > _NEWS_NS:
            log.warning("clock_was_set", seconds=-moved_ns / NANOSECONDS)
    await facts.store_recovered(await pool.recover_spool())
    clock.go_on(await database.read(room_rows.reached_ns), None)
    room_list = await database.read(room_rows.open_rooms)
    present = defaultdict(list)
    for participant in await database.read(participant_rows.present_participants):
        present[participant.room_key].append(participant)
    is_whole = True
    for row in room_list:
        try:
            rooms.restore(row, present[row.room_key])
        except Exception:
            is_whole = False
            log.exception("room_not_restored", room_key=row.room_key)
    for task in await database.read(task_rows.unfinished_tasks):
        try:
            await _take_up(database, task, rooms, tasks, unended)
        except Exception:
            is_whole = False
            log.exception("task_not_restored", task_id=task.task_id)
    for room in rooms.everywhere():
        _acknowledge(room)
    await pool.take_up_departed(is_whole=is_whole)
    await unended.settle()
    log.info("restored", rooms=len(room_list), tasks=len(tuple(tasks.running())))


async def _take_up(database: Database, task: TaskRow, rooms: Rooms, tasks: Tasks, unended: Unended) -> None:
    if task.state == task_pb2.TASK_STATE_FINALIZING:
        await unended.take_up(task)
        return
    room = rooms.by_key(task.room_key)
    if room is None:
        log.error("task_without_room", task_id=task.task_id, room_key=task.room_key)
        return
    await _resume(database, task, room, tasks)


async def _resume(database: Database, row: TaskRow, room: LiveRoom, tasks: Tasks) -> None:
    application = await database.read(lambda connection: application_rows.get(connection, row.app_id))
    task = LiveTask(room.room_key, task_proto(row), profile_of(application.profile), row.start_ns)
    task.idle_since_ns = row.idle_since_ns
    recordings = await database.read(lambda c: recording_rows.recordings_of_task(c, row.task_id))
    users = audio_tracks(room.participants)
    desired = desired_recordings(task.proto.mode, task.proto.subscription, users)
    resumed: list[FeedRecording] = []
    for recording in recordings:
        tracks = desired.get(recording_key(recording), ())
        feed_recording = FeedRecording(tasks.facts_of(task, room, recording))
        await database.read(partial(load_resume_points, recording, feed_recording))
        feed_recording.tracks = tuple(track.key for track in tracks)
        resumed.append(feed_recording)
    await database.read(partial(expect_back, task.proto, room, resumed))
    tasks.add(task)
    tasks.resume(task, room, recordings, resumed)


def _acknowledge(room: LiveRoom) -> None:
    """A returning publisher must send again all that some recording lacks."""
    recordings = room.feed.recordings.values()
    for key, track in room.feed.tracks.items():
        taking = [recording for recording in recordings if key in recording.tracks]
        if taking:
            track.acknowledged = min(recording.safe_sequence(key) for recording in taking)
