"""The state at a point of the log, as the messages that a watch begins with."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from roomtape.v1 import event_pb2, room_pb2
from roomtape_service.database import Database
from roomtape_service.database.participants import ParticipantRow
from roomtape_service.database.present import PresentState, PresentTask, Wanted, present_state
from roomtape_service.database.rooms import RoomRow
from roomtape_service.database.segments import segment_message
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.log import EventLog
from roomtape_service.rooms.room import timestamp
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.tasks import recording_proto

__all__ = ["Snapshot", "Snapshots"]

# States that are read at once: all of them are in memory until their watchers have them.
_READS = 2
# Items that are made of rows before other work has its turn.
_PORTION_ITEMS = 100


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Snapshot:
    """The state after the event `sequence`: `messages` are serialized WatchEventsResponses."""

    sequence: int
    messages: Sequence[bytes]


class Snapshots:
    """Reads states, once for all who ask for the same at the same time."""

    def __init__(self, database: Database, log: EventLog) -> None:
        self._database = database
        self._log = log
        self._reads = asyncio.Semaphore(_READS)
        self._locks: WeakValueDictionary[tuple[str, EventFilter], asyncio.Lock] = WeakValueDictionary()
        self._taken: WeakValueDictionary[tuple[str, EventFilter], Snapshot] = WeakValueDictionary()

    async def take(self, app_id: str, wanted: EventFilter, at_least: int) -> Snapshot:
        """The state at the event `at_least`, or a later one. Raises Refusal APPLICATION_NOT_FOUND."""
        # Watchers that come back together have the same filter; what one of them is being sent is good for all.
        key = (app_id, wanted)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            snapshot = self._taken.get(key)
            if snapshot is None or snapshot.sequence < at_least:
                snapshot = self._taken[key] = await self._read(app_id, wanted)
        return snapshot

    async def _read(self, app_id: str, wanted: EventFilter) -> Snapshot:
        columns = _wanted(wanted)
        async with self._reads:
            state = await self._database.scan(lambda connection: present_state(connection, app_id, columns))
            token = self._log.snapshot_token(app_id)
            messages: list[bytes] = []
            for item in _items(state, columns):
                if len(messages) % _PORTION_ITEMS == 0:
                    await asyncio.sleep(0)
                response = event_pb2.WatchEventsResponse(resume_token=token, snapshot=item)
                messages.append(response.SerializeToString())
        return Snapshot(state.sequence, messages)


def _wanted(wanted: EventFilter) -> Wanted:
    """The kinds of which the filter takes events, under its other conditions."""
    types = wanted.types or event_pb2.EventType.values()
    names = [event_pb2.EventType.Name(event_pb2.EventType.ValueType(each)) for each in types]

    def tells_of(*nouns: str) -> bool:
        return any(name.startswith(f"EVENT_TYPE_{noun}_") for name in names for noun in nouns)

    return Wanted(
        task_ids=wanted.task_ids,
        room_ids=wanted.room_ids,
        labels=wanted.labels,
        rooms=tells_of("ROOM"),
        participants=tells_of("PARTICIPANT", "TRACK"),
        tasks=tells_of("TASK"),
        recordings=tells_of("RECORDING"),
        segments=tells_of("SEGMENT"),
    )


def _items(state: PresentState, wanted: Wanted) -> Iterator[event_pb2.SnapshotItem]:
    for room in state.rooms:
        if wanted.rooms:
            yield event_pb2.SnapshotItem(room=_room(room))
        for participant in state.participants.get(room.room_key, ()):
            yield event_pb2.SnapshotItem(participant=_participant(participant))
    for task in state.tasks:
        yield from _items_of_task(task, wanted)


def _items_of_task(present: PresentTask, wanted: Wanted) -> Iterator[event_pb2.SnapshotItem]:
    if wanted.tasks:
        yield event_pb2.SnapshotItem(task=task_proto(present.task))
    for recording in present.recordings:
        if wanted.recordings:
            yield event_pb2.SnapshotItem(recording=recording_proto(recording))
        for segment in present.segments.get(recording.recording_id, ()):
            yield event_pb2.SnapshotItem(segment=segment_message(segment))


def _room(row: RoomRow) -> room_pb2.Room:
    return room_pb2.Room(
        app_id=row.app_id,
        room_id=row.room_id,
        clock=room_pb2.RoomClock.ValueType(row.clock),
        create_time=timestamp(row.create_ns),
    )


def _participant(row: ParticipantRow) -> event_pb2.SnapshotParticipant:
    participant = room_pb2.Participant.FromString(row.tracks)
    participant.user_id = row.user_id
    participant.publish_session_id = row.publish_session_id
    participant.join_time.CopyFrom(timestamp(row.join_ns))
    return event_pb2.SnapshotParticipant(room_id=row.room_id, participant=participant)
