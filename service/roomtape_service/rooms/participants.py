"""Participants of a room: they join, break off, come back, fall silent and leave."""

from collections.abc import Iterable

import structlog

from roomtape.v1 import error_pb2, event_pb2, room_pb2
from roomtape_service.clock import Clock
from roomtape_service.database import applications as application_rows
from roomtape_service.database import participants as participant_rows
from roomtape_service.database import rooms as room_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.participants import MuteRow, ParticipantRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.ids import Ids
from roomtape_service.operations import Operations
from roomtape_service.recording import protocol
from roomtape_service.rooms.membership import Apply
from roomtape_service.rooms.room import Connection, LiveParticipant, LiveRoom, track_key
from roomtape_service.rooms.rooms import Rooms, append_left, track_facts
from roomtape_service.rooms.tally import RoomTally
from roomtape_service.rules.profiles import SecondSession, profile_of

__all__ = ["Participants"]

log = structlog.get_logger(__name__)


class Participants:
    """Changes who is in a room. A change is stored before anybody sees it."""

    def __init__(
        self, rooms: Rooms, database: Database, operations: Operations, clock: Clock, ids: Ids
    ) -> None:
        self._rooms = rooms
        self._database = database
        self._operations = operations
        self._clock = clock
        self._ids = ids

    async def join(
        self, room: LiveRoom, wanted: room_pb2.Participant, connection: Connection, sent_ns: int
    ) -> tuple[LiveParticipant, bool]:
        """Lets a publisher in, or resumes their session; returns whether it was resumed.

        `wanted` has user, session and tracks. Raises Refusal ALREADY_PUBLISHING, ROOM_NOT_FOUND, INVALID_VALUE.
        """
        return await self._operations.run(self._join(room, wanted, connection, sent_ns))

    async def disconnect(self, room: LiveRoom, user_id: str, connection: Connection) -> None:
        """A publisher's connection is gone. They stay in the room for a while, if they are in it."""
        await self._operations.run(self._disconnect(room, user_id, connection))

    async def leave(
        self, room: LiveRoom, who: LiveParticipant, at_ns: int, connection: Connection | None
    ) -> None:
        """A participant leaves; what they published ends at the room time `at_ns`.

        Nothing if they have left, or came back in the meantime: `connection` is the one over which they leave, or None
        for one who is not connected.
        """
        await self._operations.run(self._leave(room, who, at_ns, connection))

    async def mute(
        self,
        room: LiveRoom,
        user_id: str,
        track_id: str,
        muted: bool,
        order: Order[room_pb2.SetTrackMutedResponse] | None = None,
    ) -> room_pb2.SetTrackMutedResponse:
        """Sets whether a track, or with an empty `track_id` every track of the user, is muted.

        Raises Refusal PARTICIPANT_NOT_FOUND, TRACK_NOT_FOUND.
        """
        return await self._operations.run(self._mute(room, user_id, track_id, muted, order))

    async def remove(
        self, room: LiveRoom, user_id: str, order: Order[room_pb2.RemoveParticipantResponse]
    ) -> room_pb2.RemoveParticipantResponse:
        """Takes a participant out, and ends their stream. Raises Refusal PARTICIPANT_NOT_FOUND."""
        return await self._operations.run(self._remove(room, user_id, order))

    async def _join(
        self, room: LiveRoom, wanted: room_pb2.Participant, connection: Connection, sent_ns: int
    ) -> tuple[LiveParticipant, bool]:
        async with room.lock:
            if room.closed:
                self._rooms.find(room.app_id, room.room_id)
            present = room.participants.get(wanted.user_id)
            if present is not None and present.publish_session_id == wanted.publish_session_id:
                self._resume(room, present, wanted, connection, sent_ns)
                return present, True
            _refuse_other_tracks(room, wanted)
            who = LiveParticipant(
                self._ids.token(), wanted.user_id, wanted.publish_session_id, self._clock.now_ns()
            )
            row = _row(room, who, wanted, sent_ns)
            is_first = room.epoch_ns is None

            async def work(uow: UnitOfWork) -> list[Apply]:
                tally = RoomTally.of(room)
                if present is not None:
                    await self._refuse_second(uow, room, present)
                    reason = event_pb2.LEAVE_REASON_REPLACED
                    await append_left(uow, room, tally, present, room.now_ns(uow.now_ns), reason)
                if is_first:
                    await room_rows.set_epoch(uow.connection, room.room_key, sent_ns)
                await participant_rows.insert_participant(uow.connection, row)
                await _append_joined(uow, room, tally, wanted)
                others = {user: each for user, each in room.participants.items() if each is not present}
                for track in wanted.tracks:
                    if track.track_id not in who.tracks:
                        self._rooms.add_track(room, who, track)
                return await self._rooms.decide(uow, room, others | {who.user_id: who})

            try:
                applies = await self._database.write(work)
            except BaseException:
                for track in who.tracks.values():
                    room.feed.close_track(track.feed, protocol.BEFORE_ALL_NS)
                raise
            if is_first:
                room.begin(sent_ns)
            if present is not None:
                self._depart(room, present, room.now_ns(self._clock.now_ns()))
                _end(present, _replaced(present))
            who.connection, who.sent_ns = connection, sent_ns
            room.participants[who.user_id] = who
            for apply in applies:
                apply()
            return who, False

    def _resume(
        self,
        room: LiveRoom,
        who: LiveParticipant,
        wanted: room_pb2.Participant,
        connection: Connection,
        sent_ns: int,
    ) -> None:
        offered = {
            track.track_id: (track.codec, track.sample_rate_hz, track.channels) for track in wanted.tracks
        }
        known = {
            track_id: (track.proto.codec, track.proto.sample_rate_hz, track.proto.channels)
            for track_id, track in who.tracks.items()
        }
        if offered != known:
            raise _other_tracks(who.publish_session_id, known)
        if who.connection is not None:
            who.connection.end(_replaced(who))
        who.connection, who.lost_at_ns, who.sent_ns = connection, None, max(who.sent_ns, sent_ns)
        # What they do not send again, their track tells.
        who.unless_back.clear()
        for track in who.tracks.values():
            room.feed.return_track(track.feed)

    async def _refuse_second(self, uow: UnitOfWork, room: LiveRoom, present: LiveParticipant) -> None:
        application = await application_rows.get(uow.connection, room.app_id)
        policy = profile_of(application.profile).second_session
        if present.connected and policy is SecondSession.REFUSE:
            raise Refusal(
                error_pb2.ERROR_REASON_ALREADY_PUBLISHING,
                f"The user {present.user_id!r} publishes from the session {present.publish_session_id!r}; close it "
                "first.",
                metadata={"userId": present.user_id, "publishSessionId": present.publish_session_id},
            )

    async def _disconnect(self, room: LiveRoom, user_id: str, connection: Connection) -> None:
        async with room.lock:
            who = room.participants.get(user_id)
            if who is None or who.connection is not connection:
                return
            who.connection = None
            who.lost_at_ns = self._clock.now_ns()
            at_ns = room.now_ns(who.lost_at_ns)
            for track in who.tracks.values():
                room.feed.lose_track(track.feed, at_ns)

    async def _leave(
        self, room: LiveRoom, who: LiveParticipant, at_ns: int, connection: Connection | None
    ) -> None:
        async with room.lock:
            if room.participants.get(who.user_id) is not who or who.connection is not connection:
                return
            others = {user: each for user, each in room.participants.items() if each is not who}

            async def work(uow: UnitOfWork) -> list[Apply]:
                is_lost = connection is None
                reason = event_pb2.LEAVE_REASON_LOST if is_lost else event_pb2.LEAVE_REASON_CLOSED
                await append_left(uow, room, RoomTally.of(room), who, at_ns, reason)
                return await self._rooms.decide(uow, room, others)

            applies = await self._database.write(work)
            self._depart(room, who, at_ns)
            for apply in applies:
                apply()

    async def _mute(
        self,
        room: LiveRoom,
        user_id: str,
        track_id: str,
        muted: bool,
        order: Order[room_pb2.SetTrackMutedResponse] | None,
    ) -> room_pb2.SetTrackMutedResponse:
        async with room.lock:
            reply = room_pb2.SetTrackMutedResponse()
            event_type = event_pb2.EVENT_TYPE_TRACK_MUTED if muted else event_pb2.EVENT_TYPE_TRACK_UNMUTED

            async def work(uow: UnitOfWork) -> list[str]:
                if order is not None and await order.earlier_reply(uow) is not None:
                    return []
                who = self.find(room, user_id)
                changed = [each for each in _chosen(who, track_id) if who.tracks[each].proto.muted != muted]
                if changed:
                    after = _with_mutes(who, changed, muted)
                    await participant_rows.update_tracks(uow.connection, who.participant_key, after)
                    now_ns = room.now_ns(uow.now_ns)
                    mutes = [MuteRow(who.participant_key, each, now_ns, muted) for each in changed]
                    await participant_rows.add_mutes(uow.connection, mutes)
                    tally = RoomTally.of(room)
                    for track in after.tracks:
                        if track.track_id in changed:
                            await uow.append(tally.event(event_type, room.proto(), after, track))
                if order is not None:
                    await order.keep(uow, reply)
                return changed

            changed = await self._database.write(work)
            at_ns = room.now_ns(self._clock.now_ns())
            for each in changed:
                track = room.participants[user_id].tracks[each]
                track.proto.muted = muted
                room.feed.mute_track(track.feed, muted, at_ns)
            return reply

    async def _remove(
        self, room: LiveRoom, user_id: str, order: Order[room_pb2.RemoveParticipantResponse]
    ) -> room_pb2.RemoveParticipantResponse:
        async with room.lock:

            async def work(
                uow: UnitOfWork,
            ) -> tuple[room_pb2.RemoveParticipantResponse, LiveParticipant | None, list[Apply]]:
                earlier = await order.earlier_reply(uow)
                if earlier is not None:
                    return earlier, None, []
                who = self.find(room, user_id)
                others = {user: each for user, each in room.participants.items() if each is not who}
                reason = event_pb2.LEAVE_REASON_REMOVED
                await append_left(uow, room, RoomTally.of(room), who, room.now_ns(uow.now_ns), reason)
                applies = await self._rooms.decide(uow, room, others)
                return await order.keep(uow, room_pb2.RemoveParticipantResponse()), who, applies

            reply, who, applies = await self._database.write(work)
            if who is not None:
                self._depart(room, who, room.now_ns(self._clock.now_ns()))
                for apply in applies:
                    apply()
                _end(who, _removed(who))
            return reply

    def find(self, room: LiveRoom, user_id: str) -> LiveParticipant:
        """The participant. Raises Refusal PARTICIPANT_NOT_FOUND."""
        who = room.participants.get(user_id)
        if who is None:
            raise Refusal(
                error_pb2.ERROR_REASON_PARTICIPANT_NOT_FOUND,
                f"The user {user_id!r} is not in the room {room.room_id!r}.",
                metadata={"userId": user_id, "roomId": room.room_id},
            )
        return who

    def _depart(self, room: LiveRoom, who: LiveParticipant, at_ns: int) -> None:
        room.participants.pop(who.user_id, None)
        for track in who.tracks.values():
            room.feed.close_track(track.feed, at_ns)


def _row(room: LiveRoom, who: LiveParticipant, wanted: room_pb2.Participant, sent_ns: int) -> ParticipantRow:
    is_live = room.clock != room_pb2.ROOM_CLOCK_MEDIA
    return ParticipantRow(
        participant_key=who.participant_key,
        room_key=room.room_key,
        app_id=room.app_id,
        room_id=room.room_id,
        user_id=who.user_id,
        publish_session_id=who.publish_session_id,
        tracks=room_pb2.Participant(tracks=wanted.tracks).SerializeToString(),
        join_ns=who.join_ns,
        room_join_ns=who.join_ns if is_live else sent_ns,
    )


async def _append_joined(
    uow: UnitOfWork, room: LiveRoom, tally: RoomTally, wanted: room_pb2.Participant
) -> None:
    await uow.append(tally.event(event_pb2.EVENT_TYPE_PARTICIPANT_JOINED, room.proto(), wanted))
    for track in wanted.tracks:
        await uow.append(tally.event(event_pb2.EVENT_TYPE_TRACK_STARTED, room.proto(), wanted, track))


def _refuse_other_tracks(room: LiveRoom, wanted: room_pb2.Participant) -> None:
    """Of a session that ended, the feed may have tracks that are still being written: they can't become others."""
    session = wanted.publish_session_id
    for track in wanted.tracks:
        key = track_key(wanted.user_id, session, track.track_id)
        known = room.feed.tracks.get(key)
        if known is not None and known.facts != track_facts(key, wanted.user_id, track):
            raise _other_tracks(session, [track.track_id])


def _other_tracks(publish_session_id: str, track_ids: Iterable[str]) -> Refusal:
    tracks = ", ".join(sorted(track_ids))
    return field_refusal(
        error_pb2.ERROR_REASON_INVALID_VALUE,
        "open.tracks",
        f"the session {publish_session_id!r} has other tracks ({tracks}); resume it with the same, or begin a new "
        "session",
        publishSessionId=publish_session_id,
        tracks=tracks,
    )


def _chosen(who: LiveParticipant, track_id: str) -> list[str]:
    if not track_id:
        return list(who.tracks)
    if track_id not in who.tracks:
        raise Refusal(
            error_pb2.ERROR_REASON_TRACK_NOT_FOUND,
            f"The user {who.user_id!r} has no track {track_id!r}.",
            metadata={"userId": who.user_id, "trackId": track_id},
        )
    return [track_id]


def _with_mutes(who: LiveParticipant, track_ids: list[str], muted: bool) -> room_pb2.Participant:
    after = who.proto()
    for track in after.tracks:
        if track.track_id in track_ids:
            track.muted = muted
    return after


def _end(who: LiveParticipant, refusal: Refusal) -> None:
    if who.connection is not None:
        who.connection.end(refusal)


def _replaced(who: LiveParticipant) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_PUBLISH_REPLACED,
        f"The user {who.user_id!r} publishes over another connection.",
        metadata={"userId": who.user_id, "publishSessionId": who.publish_session_id},
    )


def _removed(who: LiveParticipant) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_PARTICIPANT_REMOVED,
        f"The user {who.user_id!r} was removed from the room.",
        metadata={"userId": who.user_id},
    )
