"""A participant who publishes: one session over as many streams and servers as it takes."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

import grpc

from roomtape.client.backoff import RESUMABLE, Backoff, RetrySettings
from roomtape.client.clock import Clock
from roomtape.client.errors import Cancelled, ClientClosed, NotFound, RoomtapeError, Unavailable
from roomtape.client.publish_stream import (
    Closed,
    OpenPublish,
    PublishStream,
    RedirectedTo,
    StreamHooks,
)
from roomtape.client.session import PublisherSettings, PublisherStatistics, PublishSession
from roomtape.v1 import ingest_pb2, room_pb2

__all__ = ["OnAcknowledged", "OnRejected", "PublishConnector", "Publisher", "publishing_retry"]

OnAcknowledged = Callable[[str, int], None]
OnRejected = Callable[[ingest_pb2.FramesRejected], None]

# Servers that send us round in a circle.
MAX_REDIRECTS = 5

# Media piles up while a publisher waits, and its session is held for 30 s.
LONGEST_WAIT_SECONDS = 2.0

_LOG = logging.getLogger("roomtape.client")


class PublishConnector(Protocol):
    """Opens Publish streams at the server of a client, or at the one that a redirect named."""

    def at(self, target: str) -> OpenPublish:
        """How to open a stream at `target`; empty: the client's own server."""
        ...

    async def aclose(self) -> None:
        """Closes the channels that redirects made."""
        ...


class Publisher:
    """Publishes frames into a room, and loses none of them.

    Every frame is kept until the server calls it safe. A stream that breaks is opened again with the same session,
    here or where the server redirects to, and what is not safe is sent again. `publish` waits while the window of
    frames that are not safe is full: that is the back pressure of the recorder's disk.

    ::

        async with client.publisher("app", "room", "user", [offer]) as publisher:
            await publisher.publish("audio", packet)

    Entering opens the session, leaving closes it and waits until all is safe; an exception inside of the block
    drops the session instead, and the server holds it for 30 s.
    """

    def __init__(
        self,
        connector: PublishConnector,
        opening: ingest_pb2.PublishOpen,
        *,
        clock: Clock,
        settings: PublisherSettings,
        backoff: Backoff,
        start_ns: int | None = None,
        on_acknowledged: OnAcknowledged | None = None,
        on_rejected: OnRejected | None = None,
    ) -> None:
        self._connector = connector
        self._opening = opening
        self._clock = clock
        self._settings = settings
        self._backoff = backoff
        self._on_acknowledged = on_acknowledged
        self._on_rejected = on_rejected
        self._session = PublishSession(opening, clock, settings, start_ns)
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @property
    def publish_session_id(self) -> str:
        """The session's id; another process that goes on with this session opens with it."""
        return self._opening.publish_session_id

    @property
    def room_clock(self) -> room_pb2.RoomClock.ValueType:
        """What the room's time is made of; UNSPECIFIED before `open` returned."""
        return self._session.room_clock

    @property
    def start_time_ns(self) -> int:
        """When the participant joined, as `open` said it; 0 before."""
        return self._session.start_ns

    def statistics(self) -> PublisherStatistics:
        """The counts so far."""
        return self._session.statistics()

    async def open(self) -> None:
        """Joins the room; returns when the server says so.

        Raises the RoomtapeError with which the server refused, or the last one when it could not be reached in time.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"publish {self.publish_session_id}")
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({opened, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        self._raise_if_over()

    async def publish(
        self,
        track_id: str,
        payload: bytes,
        *,
        capture_time_ns: int | None = None,
        media_time_ns: int | None = None,
    ) -> int:
        """Queues a frame, waiting for room in the window first; returns its sequence.

        `capture_time_ns` is UTC on the publisher's clock. Default: on a live room the frame ended just now; on a
        MEDIA room it follows the one before. `media_time_ns` counts on the track's own sample clock; default: it
        follows the frame before, after a pause of 200 ms or more in the capture times that were given. Tracks with
        shorter pauses (DTX) give both.

        A cancelled call has not queued the frame. Raises ValueError for an unknown track or a payload that is none of
        its codec, and that with which the session ended if it did: a RoomtapeError, or what a callback raised.
        """
        if track_id not in self._session.tracks:
            raise ValueError(f"no track {track_id!r} was offered")
        while True:
            self._raise_if_over()
            if not self._session.is_full:
                break
            self._moved.clear()
            await self._moved.wait()
        had_unsent = self._session.tracks[track_id].has_unsent
        sequence = self._session.add(track_id, payload, capture_time_ns, media_time_ns)
        if not had_unsent or self._session.due_seconds() == 0:
            self._wake.set()
        return sequence

    def mute(self, track_id: str, muted: bool) -> None:
        """Says that a track falls silent, or speaks again, after the frames that were published so far."""
        self._raise_if_over()
        self._session.tracks[track_id].mute(muted)
        self._wake.set()

    def advance(self, track_id: str, until_ns: int) -> None:
        """Says that all of the track captured before `until_ns` was published.

        On a MEDIA room's clock, and with `told_silence`, this is what lets the room's time go on through a pause.
        """
        self._raise_if_over()
        self._session.advance(track_id, until_ns)

    async def flush(self) -> None:
        """Returns when all that was published is safe. Raises the RoomtapeError with which the session ended."""
        while True:
            self._raise_if_over()
            if not self._session.unacknowledged_frames:
                return
            self._moved.clear()
            await self._moved.wait()

    async def close(self, at_ns: int | None = None) -> None:
        """Leaves the room; returns when all that was published is safe.

        Files end at `at_ns`, UTC on the publisher's clock; default: now, on a MEDIA clock the end of the newest
        frame. If it is cancelled the session goes on closing; `aclose` ends that. Raises the RoomtapeError with which
        the session ended instead.
        """
        if self._task is None:
            return
        if not self._session.closing:
            self._session.close(at_ns)
            self._wake.set()
        await asyncio.wait({self._task})
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        """Drops what is not acknowledged and ends the stream; after `close` it has nothing to do."""
        if self._task is None or self._task.done():
            return
        self._failure = Cancelled(grpc.StatusCode.CANCELLED, "the publisher dropped its session")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.close()
        finally:
            await self.aclose()

    async def _run(self) -> None:
        try:
            await self._live()
        except Exception as error:
            self._failure = error
        finally:
            self._moved.set()
            await self._connector.aclose()

    async def _live(self) -> None:
        hooks = StreamHooks(self._stream_opened, self._acknowledged, self._rejected)
        stream = PublishStream(self._session, hooks, self._wake, self._settings.reply_seconds)
        outage = _Outage(self._clock, self._settings.open_seconds)
        target = ""
        while True:
            streams = self._session.streams
            try:
                end = await stream.run(self._connector.at(target))
            except RoomtapeError as error:
                if self._is_closed_by(error):
                    return
                if self._session.streams > streams:
                    outage = self._resumption()
                seconds = self._backoff.next_seconds(error.retry_after)
                if not _is_resumable(error) or outage.ends_within(seconds):
                    raise
                _LOG.info("publish_interrupted error=%s retry_seconds=%.3f", error, seconds)
                target = ""
                await asyncio.sleep(seconds)
                continue
            if self._session.streams > streams:
                outage = self._resumption()
            match end:
                case Closed():
                    return
                case RedirectedTo():
                    target = end.target
                    self._session.redirects += 1
                    outage.redirects += 1
                    if outage.redirects > MAX_REDIRECTS:
                        text = f"redirected {outage.redirects} times in a row, last to {target}"
                        raise Unavailable(grpc.StatusCode.UNAVAILABLE, text)

    def _resumption(self) -> "_Outage":
        self._backoff.reset()
        return _Outage(self._clock, self._settings.outage_seconds)

    def _is_closed_by(self, error: RoomtapeError) -> bool:
        # The goodbye was lost with its stream, and the room is gone: there is nothing left to wait for.
        return (
            self._session.closing and not self._session.unacknowledged_frames and isinstance(error, NotFound)
        )

    def _stream_opened(self) -> None:
        self._opened.set()

    def _acknowledged(self, news: list[tuple[str, int]]) -> None:
        if news:
            self._moved.set()
        if self._on_acknowledged is not None:
            for track_id, sequence in news:
                self._on_acknowledged(track_id, sequence)

    def _rejected(self, rejected: ingest_pb2.FramesRejected) -> None:
        self._session.rejected_frames += rejected.last_sequence - rejected.first_sequence + 1
        _LOG.warning(
            "frames_rejected track=%s first=%d last=%d message=%s",
            rejected.track_id,
            rejected.first_sequence,
            rejected.last_sequence,
            rejected.message,
        )
        if self._on_rejected is not None:
            self._on_rejected(rejected)

    def _raise_if_over(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._task is None or self._session.closing or self._task.done():
            raise ValueError("the publisher is not open")


def publishing_retry(retry: RetrySettings) -> RetrySettings:
    """How a publisher tries again, out of how the client does."""
    return replace(retry, max_seconds=min(retry.max_seconds, LONGEST_WAIT_SECONDS))


class _Outage:
    """How long a session may be without a stream, from now on."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self.redirects = 0
        self._clock = clock
        self._end_ns = None if seconds is None else clock.monotonic_ns() + round(seconds * 1e9)

    def ends_within(self, seconds: float) -> bool:
        return self._end_ns is not None and self._clock.monotonic_ns() + round(seconds * 1e9) > self._end_ns


def _is_resumable(error: RoomtapeError) -> bool:
    if isinstance(error, ClientClosed):
        return False
    # A server that says when to come back wants us back.
    return error.code in RESUMABLE or error.retry_after is not None
