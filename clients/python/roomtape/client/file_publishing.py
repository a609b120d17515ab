"""Publishing a media file: in real time, or as fast as it goes."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roomtape.client.clock import NANOSECONDS, Clock
from roomtape.client.errors import RoomtapeError
from roomtape.client.media_file import MediaFile, MediaFrame
from roomtape.client.publisher import Publisher
from roomtape.client.session import PublisherStatistics
from roomtape.v1 import ingest_pb2, room_pb2

__all__ = ["OnProgress", "PublishProgress", "publish_file", "publish_media"]

# Read ahead so much at a time, off the event loop.
READ_NS = NANOSECONDS

# A participant whose publishing is cancelled leaves the room, rather than being held in it for 30 s.
LEAVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """How far a file is published."""

    published_ns: int
    """How much of what is heard of the file was published."""

    duration_ns: int | None
    """How long the file says that it is; None when it does not."""

    done: bool
    """Whether all of it is safe."""


OnProgress = Callable[[PublishProgress], None]


class FrameSource(Protocol):
    """Where frames come from; `MediaFile` is one."""

    @property
    def duration_ns(self) -> int | None: ...

    def read(self, at_least_ns: int) -> list[MediaFrame]: ...


class FrameSink(Protocol):
    """Where frames go; `Publisher` is one."""

    async def publish(
        self, track_id: str, payload: bytes, *, capture_time_ns: int | None, media_time_ns: int | None
    ) -> int: ...

    def advance(self, track_id: str, until_ns: int) -> None: ...

    async def close(self, at_ns: int | None) -> None: ...


MakePublisher = Callable[[ingest_pb2.TrackOffer, Clock], Publisher]


async def publish_file(
    make_publisher: MakePublisher,
    path: str | Path,
    *,
    track_id: str,
    realtime: bool,
    start_ns: int | None,
    opus_bitrate_bps: int | None,
    clock: Clock,
    on_progress: OnProgress | None,
) -> PublisherStatistics:
    """Publishes a file from its beginning to its end; see `Client.publish_file`."""
    source = await asyncio.to_thread(MediaFile, path, opus_bitrate_bps)
    try:
        # Reading the first second before joining keeps the time of opening the file out of the room.
        first = await asyncio.to_thread(source.read, READ_NS)
        async with make_publisher(source.offer(track_id), clock) as publisher:
            is_media = publisher.room_clock == room_pb2.ROOM_CLOCK_MEDIA
            if not is_media and (start_ns is not None or not realtime):
                raise ValueError("a room with the ARRIVAL clock takes a file only in real time, and only now")
            try:
                await publish_media(
                    publisher,
                    track_id,
                    source,
                    first,
                    start_ns=publisher.start_time_ns if is_media else clock.now_ns(),
                    realtime=realtime,
                    clock=clock,
                    on_progress=on_progress,
                )
            except asyncio.CancelledError:
                await _leave(publisher)
                raise
            return publisher.statistics()
    finally:
        await asyncio.to_thread(source.close)


async def _leave(publisher: Publisher) -> None:
    with contextlib.suppress(TimeoutError, RoomtapeError):
        async with asyncio.timeout(LEAVE_SECONDS):
            await publisher.close()


async def publish_media(
    publisher: FrameSink,
    track_id: str,
    source: FrameSource,
    first: list[MediaFrame],
    *,
    start_ns: int,
    realtime: bool,
    clock: Clock,
    on_progress: OnProgress | None,
) -> None:
    """Publishes `first` and all that `source` has after it, and closes the publisher at the file's end.

    Each frame's capture time is `start_ns` and when it is heard in the file. In real time a frame is published when it
    would have been captured: every frame waits for its own place on the clock, so no delay adds up to the next.
    """
    origin_ns = clock.monotonic_ns()
    end_ns = 0
    frames = first
    while frames:
        for frame in frames:
            # A file that was read late is not silent: that it says itself, by the time of its next frame.
            capture_ns = start_ns + frame.heard_ns
            publisher.advance(track_id, capture_ns)
            end_ns = frame.heard_ns + frame.duration_ns
            ahead_ns = origin_ns + end_ns - clock.monotonic_ns()
            if realtime and ahead_ns > 0:
                await clock.sleep(ahead_ns / NANOSECONDS)
            await publisher.publish(
                track_id, frame.payload, capture_time_ns=capture_ns, media_time_ns=frame.media_time_ns
            )
        if on_progress is not None:
            on_progress(PublishProgress(end_ns, source.duration_ns, done=False))
        frames = await asyncio.to_thread(source.read, READ_NS)
    await publisher.close(start_ns + end_ns)
    if on_progress is not None:
        on_progress(PublishProgress(end_ns, source.duration_ns, done=True))
