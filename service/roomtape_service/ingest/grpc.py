"""IngestService.Publish: frames over a gRPC stream."""

import asyncio

import structlog
from grpc import aio

from roomtape.v1 import error_pb2, ingest_pb2, ingest_pb2_grpc, room_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.ingest.batches import check_open, check_sent_time, tracks_of
from roomtape_service.ingest.session import PublishSession
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.rooms.participants import Participants
from roomtape_service.rooms.room import LiveParticipant, LiveRoom
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rpc import validation
from roomtape_service.rpc.call import authorize
from roomtape_service.rpc.interceptors import Context

__all__ = ["IngestServicer"]

_RECORDED_SECONDS = 1.0
"""How soon all of a leaver is recorded, unless a mix waits for others. Checkpoints are written three times a second."""

log = structlog.get_logger(__name__)


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Owns the publishing connections of the node."""

    def __init__(self, rooms: Rooms, participants: Participants, pool: WorkerPool, clock: Clock) -> None:
        self._rooms = rooms
        self._participants = participants
        self._pool = pool
        self._clock = clock
        self._sessions: set[PublishSession] = set()
        self._is_draining = False

    def stop_reading(self) -> None:
        """Takes nothing in any more: what comes now is not acknowledged, and publishers send it again."""
        self._is_draining = True

    async def drain(self) -> None:
        """Says goodbye to every publisher, with what is safe."""
        self._is_draining = True
        for session in tuple(self._sessions):
            session.finish(ingest_pb2.GOODBYE_REASON_DRAINING)

    # The stubs know only generators, and a generator can't write while it waits for what comes next.
    async def Publish(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """Reads in this task and writes in another, until one of them ends."""
        opening = await context.read()
        if opening is aio.EOF:
            return
        if opening.WhichOneof("message") != "open":
            raise _not_opened()
        room, participant, sent_ns = await self._check(opening.open)
        session = PublishSession(self._clock, context.write)
        try:
            who, resumed = await self._participants.join(room, participant, session, sent_ns)
        except asyncio.CancelledError:
            # The joining goes on without its caller, and must not leave a participant whom nobody connects.
            await self._participants.disconnect(room, participant.user_id, session)
            raise
        self._sessions.add(session)
        reader: asyncio.Task[int | None] | None = None
        writer: asyncio.Task[None] | None = None
        try:
            await session.start(room, who, resumed)
            if self._is_draining:
                session.finish(ingest_pb2.GOODBYE_REASON_DRAINING)
            reader = asyncio.create_task(self._read(session, room, who, context))
            writer = asyncio.create_task(session.run_writer())
            ended = asyncio.create_task(session.ended.wait())
            try:
                await asyncio.wait({reader, writer, ended}, return_when=asyncio.FIRST_COMPLETED)
                if reader.done() and not session.ended.is_set() and reader.exception() is None:
                    await self._after_reading(reader.result(), session, room, who, writer, ended)
            finally:
                ended.cancel()
            if reader.done() and not reader.cancelled() and (error := reader.exception()) is not None:
                raise error
            if session.refusal is not None:
                raise session.refusal
            _check_written(writer)
        finally:
            self._sessions.discard(session)
            session.release()
            running = [task for task in (reader, writer) if task is not None]
            for task in running:
                task.cancel()
            try:
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                # A connection that breaks ends the reading first and cancels the call a moment later, maybe here.
                await self._participants.disconnect(room, who.user_id, session)

    async def _after_reading(
        self,
        closed_at_ns: int | None,
        session: PublishSession,
        room: LiveRoom,
        who: LiveParticipant,
        writer: "asyncio.Task[None]",
        ended: "asyncio.Task[bool]",
    ) -> None:
        if closed_at_ns is None:
            return
        if room.clock == room_pb2.ROOM_CLOCK_MEDIA:
            try:
                tracks = [track.feed for track in who.tracks.values()]
                await self._pool.keep_departing(room.feed, tracks, closed_at_ns)
            except OSError as error:
                log.warning("departing_not_kept", room_id=room.room_id, error=str(error))
        await self._participants.leave(room, who, closed_at_ns, session)
        session.finish(ingest_pb2.GOODBYE_REASON_CLOSED)
        done, _ = await asyncio.wait(
            {writer, ended}, timeout=_RECORDED_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            session.count_kept()
            await asyncio.wait({writer, ended}, return_when=asyncio.FIRST_COMPLETED)

    async def _read(
        self, session: PublishSession, room: LiveRoom, who: LiveParticipant, context: Context
    ) -> int | None:
        """Takes what comes until the publisher closes, and returns the room time of that; None if they break off."""
        while (request := await context.read()) is not aio.EOF:
            if self._is_draining:
                # What is not acknowledged will be sent again to the next node.
                continue
            kind = request.WhichOneof("message")
            if kind == "frames":
                await session.take(request.frames)
            elif kind == "close":
                if request.close.HasField("sent_time"):
                    check_sent_time(request.close.sent_time, "close.sent_time")
                return session.closing_ns(request.close)
            elif kind == "mute":
                await self._mute(room, who, request.mute)
            else:
                raise _not_opened()
        return None

    async def _mute(self, room: LiveRoom, who: LiveParticipant, mute: ingest_pb2.TrackMute) -> None:
        if mute.track_id not in who.tracks:
            raise field_refusal(
                error_pb2.ERROR_REASON_UNKNOWN_TRACK,
                "mute.track_id",
                f"{mute.track_id!r} was not opened",
                trackId=mute.track_id,
            )
        await self._participants.mute(room, who.user_id, mute.track_id, mute.muted)

    async def _check(self, opening: ingest_pb2.PublishOpen) -> tuple[LiveRoom, room_pb2.Participant, int]:
        validation.refuse(
            validation.app_id(opening.app_id, "open.app_id"),
            validation.room_id(opening.room_id, "open.room_id"),
        )
        authorize(opening.app_id, "open.app_id")
        if self._is_draining:
            raise Refusal(error_pb2.ERROR_REASON_DRAINING, "The server is stopping; open again in a moment.")
        room = await self._rooms.require(opening.app_id, opening.room_id)
        check_open(opening, room.clock == room_pb2.ROOM_CLOCK_MEDIA)
        participant = room_pb2.Participant(
            user_id=opening.user_id,
            publish_session_id=opening.publish_session_id,
            tracks=tracks_of(opening),
        )
        sent_ns = opening.sent_time.seconds * NANOSECONDS + opening.sent_time.nanos
        return room, participant, sent_ns


def _check_written(writer: "asyncio.Task[None]") -> None:
    """A stream whose writer failed must not look ended by the rules: its publisher has to resume."""
    if not writer.done() or writer.cancelled() or (error := writer.exception()) is None:
        return
    if isinstance(error, aio.BaseError):
        # Connections break while somebody writes; that is no defect of ours.
        log.warning("publisher_not_told", error=str(error))
        raise Refusal(
            error_pb2.ERROR_REASON_INTERNAL, "The stream could not be written; open it again."
        ) from error
    raise error


def _not_opened() -> Refusal:
    return field_refusal(
        error_pb2.ERROR_REASON_PUBLISH_NOT_OPENED,
        "open",
        "the first message of a stream must be `open`, and only the first",
    )
