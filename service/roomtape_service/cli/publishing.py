"""Files on their way into a room, one user each: joined together, stopped early, and followed as they become safe."""

import asyncio
from collections import deque
from pathlib import Path

import av

from roomtape.client import (
    Client,
    Publisher,
    PublisherSettings,
    PublisherStatistics,
    PublishProgress,
    SystemClock,
)
from roomtape.client.file_publishing import publish_media
from roomtape.client.media_file import MediaFile, MediaFrame
from roomtape.v1 import media_pb2, room_pb2
from roomtape_service.cli.calling import CommandError

__all__ = ["FilePublication"]

TRACK_ID = "audio"

# In real time a stop is heard, and progress shown, so often.
READ_NS = 200_000_000


class FilePublication:
    """One file as one participant: `load`, `join`, `run`, and `aclose` in any case."""

    def __init__(
        self,
        client: Client,
        path: Path,
        app_id: str,
        room_id: str,
        user_id: str,
        *,
        realtime: bool,
        start_ns: int | None = None,
        opus_bitrate_bps: int | None = None,
    ) -> None:
        self.path = path
        self.user_id = user_id
        self.published_ns = 0
        """Media time that was published."""
        self.safe_ns = 0
        """Media time that the server called safe."""
        self.start_ns = 0
        """When the first sample was captured, UTC; 0 before `run`."""
        self.done = False
        """Whether the whole file is safe."""
        self._client = client
        self._app_id = app_id
        self._room_id = room_id
        self._realtime = realtime
        self._given_start_ns = start_ns
        self._opus_bitrate_bps = opus_bitrate_bps
        self._clock = SystemClock()
        self._file: MediaFile | None = None
        self._publisher: Publisher | None = None
        self._first: list[MediaFrame] = []
        # Where the frames end that are not safe, by their sequence; appended while reading, in another thread.
        self._ends: deque[int] = deque()
        self._safe_frames = 0
        self._stopped = False

    @property
    def duration_ns(self) -> int | None:
        """How long the file says that it is; None when it does not."""
        return None if self._file is None else self._file.duration_ns

    @property
    def codec(self) -> media_pb2.Codec.ValueType:
        """What is sent; UNSPECIFIED before `load`."""
        return media_pb2.CODEC_UNSPECIFIED if self._file is None else self._file.codec

    def statistics(self) -> PublisherStatistics | None:
        """The publisher's counts; None before `join`."""
        return None if self._publisher is None else self._publisher.statistics()

    async def load(self) -> None:
        """Opens the file and reads its beginning. Raises CommandError."""
        try:
            self._file = await asyncio.to_thread(MediaFile, self.path, self._opus_bitrate_bps)
            self._first = await asyncio.to_thread(self.read, READ_NS)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(f"{self.path} can't be published: {reason}") from error

    async def join(self) -> None:
        """Joins the room. Raises RoomtapeError."""
        assert self._file is not None
        self._publisher = self._client.publisher(
            self._app_id,
            self._room_id,
            self.user_id,
            [self._file.offer(TRACK_ID)],
            start_time_ns=self._given_start_ns,
            settings=PublisherSettings(told_silence=True),
            clock=self._clock,
            on_acknowledged=self._acknowledged,
        )
        await self._publisher.open()

    async def run(self) -> None:
        """Publishes from the beginning to the end, or until `stop`, and leaves when all of it is safe.

        Raises CommandError for a file that can't be read on, RoomtapeError.
        """
        assert self._publisher is not None
        is_media = self._publisher.room_clock == room_pb2.ROOM_CLOCK_MEDIA
        self.start_ns = self._publisher.start_time_ns if is_media else self._clock.now_ns()
        try:
            await publish_media(
                self._publisher,
                TRACK_ID,
                self,
                self._first,
                start_ns=self.start_ns,
                realtime=self._realtime,
                clock=self._clock,
                on_progress=self._progressed,
            )
        except av.FFmpegError as error:
            # What came before the damage was published, and has to be safe.
            await self._publisher.close()
            raise CommandError(f"{self.path} can't be read on: {error.strerror or error}") from error
        self.done = not self._stopped

    def stop(self) -> None:
        """Ends the file here: what was published becomes safe, and the user leaves."""
        self._stopped = True

    async def leave(self) -> None:
        """Leaves the room without having published, if it was joined."""
        if self._publisher is not None:
            await self._publisher.close()

    async def aclose(self) -> None:
        """Lets go of the file, and of the room if that did not end well."""
        if self._publisher is not None:
            await self._publisher.aclose()
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    def read(self, at_least_ns: int) -> list[MediaFrame]:
        """The file's next frames; none once it was stopped. Blocks."""
        assert self._file is not None
        if self._stopped:
            return []
        frames = self._file.read(min(at_least_ns, READ_NS) if self._realtime else at_least_ns)
        self._ends.extend(frame.heard_ns + frame.duration_ns for frame in frames)
        return frames

    def _acknowledged(self, _track_id: str, sequence: int) -> None:
        while self._ends and self._safe_frames < sequence:
            self.safe_ns = self._ends.popleft()
            self._safe_frames += 1

    def _progressed(self, progress: PublishProgress) -> None:
        self.published_ns = progress.published_ns
