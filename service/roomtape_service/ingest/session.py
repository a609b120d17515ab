"""One publishing connection."""

import asyncio
from collections.abc import Awaitable, Callable

from roomtape.v1 import error_pb2, ingest_pb2, room_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.ingest.batches import check_batch, sent_ns
from roomtape_service.ingest.publisher_clock import PublisherClock
from roomtape_service.recording import protocol
from roomtape_service.recording.front.held import HELD_BYTES_LIMIT
from roomtape_service.rooms.room import LiveParticipant, LiveRoom, LiveTrack

__all__ = ["ACKNOWLEDGE_SECONDS", "REJECTED_LIMIT", "PublishSession"]

ACKNOWLEDGE_SECONDS = 1.0
"""How often a publisher hears of what is safe: a message out costs the node as much as several in."""
_ACKNOWLEDGE_FAST_SECONDS = 0.5
"""The same where media may come faster than real time: publishers send only so much ahead of what is safe."""

REJECTED_LIMIT = 1000
"""Rejections that wait to be written, from which on a publisher is not read who does not read them."""

Write = Callable[[ingest_pb2.PublishResponse], Awaitable[None]]


class PublishSession:
    """Takes a participant's frames, and tells what of them is safe.

    `run_writer` is the only one who writes to the stream. The session ends by `end`, by `finish`, or with its
    connection.
    """

    def __init__(self, clock: Clock, write: Write) -> None:
        self._clock = clock
        self._write = write
        self._wake = asyncio.Event()
        self._next_news: asyncio.TimerHandle | None = None
        self._told_at = 0.0
        self._acknowledge_seconds = ACKNOWLEDGE_SECONDS
        self._progress = asyncio.Event()
        self._told: dict[str, int] = {}
        self._publisher_clock = PublisherClock()
        self._rejected: list[ingest_pb2.FramesRejected] = []
        self._room: LiveRoom | None = None
        self._who: LiveParticipant | None = None
        self._goodbye = ingest_pb2.GOODBYE_REASON_UNSPECIFIED
        self._counts_kept = False
        self._refusal: Refusal | None = None
        self.ended = asyncio.Event()
        """Set when the stream must end: by `end`, or because the last message was written."""

    @property
    def refusal(self) -> Refusal | None:
        """Why the stream ends, if it does not end well."""
        return self._refusal

    def end(self, refusal: Refusal) -> None:
        """Ends the stream with this answer."""
        if self._refusal is None:
            self._refusal = refusal
        self.ended.set()
        self._progress.set()

    def finish(self, reason: ingest_pb2.GoodbyeReason.ValueType) -> None:
        """Ends the stream with a goodbye: CLOSED when all is safe, DRAINING at once."""
        self._goodbye = reason
        self._wake.set()

    def count_kept(self) -> None:
        """From now on what is kept on disk is safe enough for a goodbye, though recordings lack it."""
        self._counts_kept = True
        self._wake.set()

    async def start(self, room: LiveRoom, who: LiveParticipant, resumed: bool) -> None:
        """Binds the session to its participant, and answers `opened`."""
        self._room, self._who = room, who
        if room.clock == room_pb2.ROOM_CLOCK_MEDIA:
            self._acknowledge_seconds = _ACKNOWLEDGE_FAST_SECONDS
        opened = ingest_pb2.PublishOpened(resumed=resumed, clock=room.clock)
        for track_id, track in who.tracks.items():
            track.feed.on_acknowledged = self._on_acknowledged
            track.feed.on_rejected = self._on_rejected
            if resumed:
                self._told[track_id] = track.feed.acknowledged
                opened.acknowledgements.add(track_id=track_id, sequence=track.feed.acknowledged)
        await self._write(ingest_pb2.PublishResponse(opened=opened))

    def release(self) -> None:
        """The connection is gone: nobody is told any more."""
        if self._next_news is not None:
            self._next_news.cancel()
        if self._who is not None:
            for track in self._who.tracks.values():
                if track.feed.on_acknowledged == self._on_acknowledged:
                    track.feed.on_acknowledged = None
                    track.feed.on_rejected = None

    async def take(self, batch: ingest_pb2.FrameBatch) -> None:
        """Takes a batch in. Raises Refusal; waits while too much is not safe yet.

        That is of all tracks together: what one of them waits for may stand behind it in the stream, on another.
        """
        room, who = self._room, self._who
        assert room is not None
        assert who is not None
        track = who.tracks.get(batch.track_id)
        if track is None:
            raise _unknown_track(who, batch.track_id)
        sequence = check_batch(batch)
        sent = sent_ns(batch)
        if sent > who.sent_ns:
            who.sent_ns = sent
        arrival_ns = self._clock.now_ns()
        if batch.HasField("sent_time"):
            self._publisher_clock.observe(
                batch.sent_time.seconds * NANOSECONDS + batch.sent_time.nanos, arrival_ns
            )
        room.feed.push(track.feed, sequence, arrival_ns, batch.SerializeToString())
        while self._is_full() and not self.ended.is_set():
            self._progress.clear()
            await self._progress.wait()

    def closing_ns(self, close: ingest_pb2.PublishClose) -> int:
        """The room time at which the publisher says that their files end."""
        room, who = self._room, self._who
        assert room is not None
        assert who is not None
        sent = close.sent_time.seconds * NANOSECONDS + close.sent_time.nanos
        if room.clock == room_pb2.ROOM_CLOCK_MEDIA:
            return max(who.sent_ns, sent)
        arrival_ns = self._clock.now_ns()
        if not close.HasField("sent_time"):
            return arrival_ns
        return self._publisher_clock.server_ns(sent, arrival_ns)

    async def run_writer(self) -> None:
        """Writes acknowledgements and rejections as they come, and at last the goodbye."""
        while not self.ended.is_set():
            await self._wake.wait()
            self._wake.clear()
            for rejected in self._rejected:
                await self._write(ingest_pb2.PublishResponse(frames_rejected=rejected))
            self._rejected.clear()
            self._progress.set()
            for acknowledgement in self._news():
                await self._write(ingest_pb2.PublishResponse(acknowledgement=acknowledgement))
            if self._goodbye == ingest_pb2.GOODBYE_REASON_DRAINING or (self._goodbye and self._all_safe()):
                goodbye = ingest_pb2.Goodbye(reason=self._goodbye, acknowledgements=self._acknowledgements())
                await self._write(ingest_pb2.PublishResponse(goodbye=goodbye))
                self.ended.set()

    def _tracks(self) -> dict[str, LiveTrack]:
        return self._who.tracks if self._who is not None else {}

    def _is_full(self) -> bool:
        tracks = self._tracks().values()
        is_ahead = sum(track.feed.held.size for track in tracks) >= HELD_BYTES_LIMIT * len(tracks)
        return is_ahead or len(self._rejected) >= REJECTED_LIMIT

    def _all_safe(self) -> bool:
        assert self._room is not None
        feed = self._room.feed
        return all(
            feed.is_safe(track.feed, where_kept=self._counts_kept) for track in self._tracks().values()
        )

    def _acknowledgements(self) -> list[ingest_pb2.Acknowledgement]:
        return [
            ingest_pb2.Acknowledgement(track_id=track_id, sequence=self._safe_sequence(track))
            for track_id, track in self._tracks().items()
        ]

    def _safe_sequence(self, track: LiveTrack) -> int:
        return track.feed.safe_sequence if self._goodbye and self._all_safe() else track.feed.acknowledged

    def _news(self) -> list[ingest_pb2.Acknowledgement]:
        news = [each for each in self._acknowledgements() if self._told.get(each.track_id, 0) < each.sequence]
        for each in news:
            self._told[each.track_id] = each.sequence
        return news

    def _on_acknowledged(self) -> None:
        self._progress.set()
        if self._goodbye:
            self._wake.set()
        elif self._next_news is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), self._told_at + self._acknowledge_seconds)
            self._next_news = loop.call_at(at, self._tell_news)

    def _tell_news(self) -> None:
        self._next_news = None
        self._told_at = asyncio.get_running_loop().time()
        self._wake.set()

    def _on_rejected(self, rejected: protocol.Rejected) -> None:
        for track_id, track in self._tracks().items():
            if track.feed.handle == rejected.track:
                self._rejected.append(
                    ingest_pb2.FramesRejected(
                        track_id=track_id,
                        first_sequence=rejected.first,
                        last_sequence=rejected.last,
                        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{rejected.reason}"),
                        message=rejected.message,
                    )
                )
                self._wake.set()


def _unknown_track(who: LiveParticipant, track_id: str) -> Refusal:
    tracks = ", ".join(sorted(who.tracks))
    return field_refusal(
        error_pb2.ERROR_REASON_UNKNOWN_TRACK,
        "frames.track_id",
        f"{track_id!r} was not opened; the session has {tracks}",
        trackId=track_id,
        tracks=tracks,
    )
