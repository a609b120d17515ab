"""The rooms of a node: opened, joined, left and closed, each change stored before it is seen."""

import asyncio
from collections.abc import Sequence

import structlog

from roomtape.v1 import error_pb2, event_pb2, room_pb2
from roomtape_service.clock import Clock
from roomtape_service.database import applications as application_rows
from roomtape_service.database import participants as participant_rows
from roomtape_service.database import rooms as room_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order, Reply
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.events.build import room_event
from roomtape_service.ids import Ids
from roomtape_service.operations import Operations
from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.track import TrackFacts
from roomtape_service.rooms.codecs import TRACK_CODECS
from roomtape_service.rooms.membership import Apply, MembershipListener, audio_tracks
from roomtape_service.rooms.room import LiveParticipant, LiveRoom, LiveTrack, track_key
from roomtape_service.rooms.tally import RoomTally

__all__ = ["Rooms"]

log = structlog.get_logger(__name__)

_CLOCKS = {
    room_pb2.ROOM_CLOCK_ARRIVAL: protocol.RoomClock.ARRIVAL,
    room_pb2.ROOM_CLOCK_MEDIA: protocol.RoomClock.MEDIA,
}


class Rooms:
    """Holds the open rooms of all applications.

    Every change holds its room's lock from the decision to the last command that follows from it, is one unit of
    work, and reaches memory and workers only when that unit is durable.
    """

    def __init__(
        self, database: Database, pool: WorkerPool, operations: Operations, clock: Clock, ids: Ids
    ) -> None:
        self._database = database
        self._pool = pool
        self._operations = operations
        self._clock = clock
        self._ids = ids
        self._rooms: dict[tuple[str, str], LiveRoom] = {}
        self._by_key: dict[str, LiveRoom] = {}
        self._opening = asyncio.Lock()
        self._listeners: list[MembershipListener] = []

    def listen(self, listener: MembershipListener) -> None:
        """Adds one who decides what follows from a change."""
        self._listeners.append(listener)

    def find(self, app_id: str, room_id: str) -> LiveRoom:
        """The open room with this id. Raises Refusal ROOM_NOT_FOUND."""
        room = self._rooms.get((app_id, room_id))
        if room is None:
            raise _room_not_found(app_id, room_id)
        return room

    def get(self, app_id: str, room_id: str) -> LiveRoom | None:
        """The open room with this id."""
        return self._rooms.get((app_id, room_id))

    async def answered_before(self, order: Order[Reply], room_id: str) -> Reply:
        """The answer that an order for a room got while the room was open. Raises Refusal ROOM_NOT_FOUND."""
        earlier = await self._database.write(order.earlier_reply, name="rooms.rooms.Rooms.answered_before")
        if earlier is None:
            raise _room_not_found(order.app_id, room_id)
        return earlier

    async def require(self, app_id: str, room_id: str) -> LiveRoom:
        """As `find`. Raises Refusal APPLICATION_NOT_FOUND too, for which only a room that is not there costs a read."""
        if (app_id, room_id) not in self._rooms:
            await self._database.read(lambda connection: application_rows.get(connection, app_id))
        return self.find(app_id, room_id)

    def by_key(self, room_key: str) -> LiveRoom | None:
        """The open room with this key."""
        return self._by_key.get(room_key)

    def of_application(self, app_id: str) -> list[LiveRoom]:
        """The application's open rooms, by id."""
        rooms = (room for (owner, _), room in self._rooms.items() if owner == app_id)
        return sorted(rooms, key=lambda room: room.room_id)

    def everywhere(self) -> list[LiveRoom]:
        """All open rooms."""
        return list(self._rooms.values())

    def restore(self, row: room_rows.RoomRow, present: Sequence[participant_rows.ParticipantRow]) -> LiveRoom:
        """Takes up a room that the database has open; whoever was there is expected back."""
        room = self._add(row)
        for each in present:
            who = LiveParticipant(each.participant_key, each.user_id, each.publish_session_id, each.join_ns)
            who.lost_at_ns = self._clock.now_ns()
            for track in room_pb2.Participant.FromString(each.tracks).tracks:
                live = self.add_track(room, who, track)
                live.feed.is_connected = False
                live.feed.is_restored = True
                if track.muted:
                    live.feed.held.mute(protocol.BEFORE_ALL_NS)
            room.participants[who.user_id] = who
        return room

    def closed(self, row: room_rows.RoomRow) -> LiveRoom:
        """A room that was closed, with a feed for what was not written of it; no one can find or enter it."""
        room = self._live(row)
        room.closed = True
        return room

    async def open(
        self, order: Order[room_pb2.CreateRoomResponse], room_id: str, clock: room_pb2.RoomClock.ValueType
    ) -> room_pb2.CreateRoomResponse:
        """Opens a room, or answers with the open one.

        Raises Refusal APPLICATION_NOT_FOUND, and ROOM_EXISTS when it is open with another clock.
        """
        return await self._operations.run(self._open(order, room_id, clock))

    async def close(
        self, order: Order[room_pb2.CloseRoomResponse], room_id: str
    ) -> room_pb2.CloseRoomResponse:
        """Closes a room with all that is in it. Raises Refusal ROOM_NOT_FOUND."""
        return await self._operations.run(self._close(order, room_id))

    def add_track(self, room: LiveRoom, who: LiveParticipant, proto: room_pb2.Track) -> LiveTrack:
        """Gives a participant a track, and the room's feed with it."""
        key = track_key(who.user_id, who.publish_session_id, proto.track_id)
        track = LiveTrack(key, proto, room.feed.add_track(track_facts(key, who.user_id, proto)))
        who.tracks[proto.track_id] = track
        return track

    async def decide(
        self, uow: UnitOfWork, room: LiveRoom, participants: dict[str, LiveParticipant]
    ) -> list[Apply]:
        """What follows when `participants` are those who are there."""
        users = audio_tracks(participants)
        return [
            apply for listener in self._listeners for apply in await listener.room_changed(uow, room, users)
        ]

    async def _open(
        self, order: Order[room_pb2.CreateRoomResponse], room_id: str, clock: room_pb2.RoomClock.ValueType
    ) -> room_pb2.CreateRoomResponse:
        async with self._opening:
            existing = self._rooms.get((order.app_id, room_id))
            now_ns = self._clock.now_ns()
            epoch_ns = room_rows.NO_EPOCH_NS if clock == room_pb2.ROOM_CLOCK_MEDIA else now_ns
            row = room_rows.RoomRow(self._ids.token(), order.app_id, room_id, clock, epoch_ns, now_ns)

            async def work(uow: UnitOfWork) -> tuple[room_pb2.CreateRoomResponse, bool]:
                earlier = await order.earlier_reply(uow)
                if earlier is not None:
                    return earlier, False
                await application_rows.get(uow.connection, order.app_id)
                if existing is not None and existing.clock != clock:
                    raise _other_clock(existing)
                if existing is not None:
                    return await order.keep(uow, room_pb2.CreateRoomResponse(room=existing.proto())), False
                await room_rows.insert_room(uow.connection, row)
                room = room_proto(row)
                await uow.append(room_event(event_pb2.EVENT_TYPE_ROOM_CREATED, room))
                return await order.keep(uow, room_pb2.CreateRoomResponse(room=room)), True

            reply, is_new = await self._database.write(work)
            if is_new:
                self._add(row)
            return reply

    async def _close(
        self, order: Order[room_pb2.CloseRoomResponse], room_id: str
    ) -> room_pb2.CloseRoomResponse:
        room = self._rooms.get((order.app_id, room_id))
        if room is None:
            return await self.answered_before(order, room_id)
        async with room.lock:

            async def work(uow: UnitOfWork) -> tuple[room_pb2.CloseRoomResponse, list[Apply] | None]:
                earlier = await order.earlier_reply(uow)
                if earlier is not None:
                    return earlier, None
                if room.closed:
                    self.find(order.app_id, room_id)
                tally = RoomTally.of(room)
                reason = event_pb2.LEAVE_REASON_ROOM_CLOSED
                for who in room.participants.values():
                    await append_left(uow, room, tally, who, room.now_ns(uow.now_ns), reason)
                applies = await self.decide(uow, room, {})
                for listener in self._listeners:
                    applies += await listener.room_closed(uow, room)
                await room_rows.close_room(uow.connection, room.room_key, uow.now_ns)
                await uow.append(room_event(event_pb2.EVENT_TYPE_ROOM_CLOSED, room.proto()))
                return await order.keep(uow, room_pb2.CloseRoomResponse()), applies

            reply, applies = await self._database.write(work)
            if applies is not None:
                self._remove(room, applies)
            return reply

    def _add(self, row: room_rows.RoomRow) -> LiveRoom:
        room = self._live(row)
        self._rooms[(row.app_id, row.room_id)] = room
        self._by_key[row.room_key] = room
        return room

    def _live(self, row: room_rows.RoomRow) -> LiveRoom:
        clock = room_pb2.RoomClock.ValueType(row.clock)
        epoch_ns = None if row.epoch_ns == room_rows.NO_EPOCH_NS else row.epoch_ns
        feed = self._pool.feed(FeedFacts(row.room_key, _CLOCKS[clock]))
        if epoch_ns is not None:
            feed.begin(epoch_ns)
        return LiveRoom(row.room_key, row.app_id, row.room_id, clock, row.create_ns, feed, epoch_ns)

    def _remove(self, room: LiveRoom, applies: Sequence[Apply]) -> None:
        room.closed = True
        at_ns = room.now_ns(self._clock.now_ns())
        everybody = list(room.participants.values())
        room.participants.clear()
        for who in everybody:
            for track in who.tracks.values():
                room.feed.close_track(track.feed, at_ns)
        for apply in applies:
            apply()
        for who in everybody:
            if who.connection is not None:
                who.connection.end(_closed(room))
        self._rooms.pop((room.app_id, room.room_id), None)
        self._by_key.pop(room.room_key, None)
        self._pool.close_room(room.room_key)


def track_facts(key: str, user_id: str, proto: room_pb2.Track) -> TrackFacts:
    """What a worker must know of a track."""
    return TrackFacts(key, user_id, TRACK_CODECS[proto.codec], proto.sample_rate_hz, proto.channels)


def room_proto(row: room_rows.RoomRow) -> room_pb2.Room:
    """The room of a row, without participants."""
    room = room_pb2.Room(
        app_id=row.app_id, room_id=row.room_id, clock=room_pb2.RoomClock.ValueType(row.clock)
    )
    room.create_time.FromNanoseconds(row.create_ns)
    return room


async def append_left(
    uow: UnitOfWork,
    room: LiveRoom,
    tally: RoomTally,
    who: LiveParticipant,
    at_ns: int,
    reason: event_pb2.LeaveReason.ValueType,
) -> None:
    """Stores that a participant leaves at the room time `at_ns`, with the events of their tracks."""
    for tell in who.unless_back:
        await tell(uow)
    await participant_rows.mark_left(uow.connection, who.participant_key, uow.now_ns, at_ns)
    participant = who.proto()
    for track in who.tracks.values():
        event_type = event_pb2.EVENT_TYPE_TRACK_STOPPED
        await uow.append(tally.event(event_type, room.proto(), participant, track.proto))
    left = tally.event(event_pb2.EVENT_TYPE_PARTICIPANT_LEFT, room.proto(), participant)
    left.participant.leave_reason = reason
    await uow.append(left)


def _room_not_found(app_id: str, room_id: str) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_ROOM_NOT_FOUND,
        f"There is no open room {room_id!r} in application {app_id!r}; open it with CreateRoom.",
        metadata={"appId": app_id, "roomId": room_id},
    )


def _other_clock(room: LiveRoom) -> Refusal:
    clock = room_pb2.RoomClock.Name(room.clock)
    return Refusal(
        error_pb2.ERROR_REASON_ROOM_EXISTS,
        f"The room {room.room_id!r} is open with the clock {clock}; close it first, or open it with that clock.",
        metadata={"roomId": room.room_id, "clock": clock},
    )


def _closed(room: LiveRoom) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_ROOM_CLOSED,
        f"The room {room.room_id!r} was closed.",
        metadata={"roomId": room.room_id},
    )
