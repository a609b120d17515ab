"""Recordings that run while bad input comes, and are looked at afterwards.

Frames carry their own times, so that a test process that is busy elsewhere changes nothing of what they should become.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import numpy as np

from roomtape.client import Client
from roomtape.v1 import ingest_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.content import (
    FRAME_NS,
    RATE_HZ,
    noise_frame,
    opus_packets,
    packets_of,
    samples_of,
    without_silence,
)
from tests.support.waiting import eventually

__all__ = ["START_NS", "TRACK", "Voice", "Witness", "offer_of", "path_of", "record"]

TRACK = "mic"

_numbers = itertools.count(1)
_BATCH_FRAMES = 5
_OPUS_PACKETS = 100
START_NS = 1_700_000_000_000_000_000
"""When the first frame of a MEDIA room was captured."""


def offer_of(codec: media_pb2.Codec.ValueType, track_id: str = TRACK) -> ingest_pb2.TrackOffer:
    """A mono track at 48 kHz."""
    return ingest_pb2.TrackOffer(track_id=track_id, codec=codec, sample_rate_hz=RATE_HZ, channels=1)


def path_of(segment: segment_pb2.Segment) -> Path:
    """Where a file of a disk store lies."""
    assert segment.url.startswith("file://"), segment
    return Path(unquote(urlsplit(segment.url).path))


async def record(
    client: Client,
    room_id: str,
    clock: room_pb2.RoomClock.ValueType,
    containers: Sequence[media_pb2.Container.ValueType],
    *,
    app_id: str = "app",
) -> str:
    """Opens a room and records everybody in it; the task's id."""
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=app_id, room_id=room_id, clock=clock))
    started = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id=app_id,
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE,
            output=task_pb2.OutputSettings(single_containers=containers),
        )
    )
    return started.task.task_id


class Voice:
    """One user who publishes in real time, as far as the test leaves time for it."""

    def __init__(
        self,
        client: Client,
        room_id: str,
        user_id: str,
        codec: media_pb2.Codec.ValueType,
        next_frame: Callable[[], bytes],
        *,
        is_live: bool = False,
        app_id: str = "app",
    ) -> None:
        self.frames: list[bytes] = []
        self.acknowledged = 0
        self.publisher = client.publisher(
            app_id,
            room_id,
            user_id,
            [offer_of(codec)],
            start_time_ns=None if is_live else START_NS,
            on_acknowledged=self._heard,
        )
        self._next_frame = next_frame
        self._speaking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Joins, and returns when the first frames are safe on disk."""
        await self.publisher.open()
        self._speaking = asyncio.create_task(self._speak())
        await self.goes_on()

    async def goes_on(self) -> None:
        """Returns when frames that were not published yet are safe."""
        goal = len(self.frames) + 1
        await eventually(lambda: self.acknowledged >= goal or self._is_over(), "the witness is recorded")
        self._raise()

    async def stop(self) -> None:
        """Leaves when everything is safe."""
        assert self._speaking is not None
        self._raise()
        self._speaking.cancel()
        await asyncio.gather(self._speaking, return_exceptions=True)
        await self.publisher.close()

    async def aclose(self) -> None:
        """Gives up."""
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)
        await self.publisher.aclose()

    def _heard(self, _track_id: str, sequence: int) -> None:
        self.acknowledged = sequence

    def _is_over(self) -> bool:
        return self._speaking is not None and self._speaking.done()

    def _raise(self) -> None:
        if self._speaking is not None and self._speaking.done():
            self._speaking.result()

    async def _speak(self) -> None:
        begin = time.monotonic()
        while True:
            for _ in range(_BATCH_FRAMES):
                frame = self._next_frame()
                self.frames.append(frame)
                await self.publisher.publish(TRACK, frame)
            due = begin + len(self.frames) * FRAME_NS / 1e9
            await asyncio.sleep(max(0.0, due - time.monotonic()))


class Witness:
    """Three users in two rooms: PCM and Opus on a MEDIA clock, PCM in a live room."""

    def __init__(self, client: Client, app_id: str = "app") -> None:
        number = next(_numbers)
        self.client = client
        self.app_id = app_id
        self.room_id = f"witness-{number}"
        self.live_room_id = f"live-{number}"
        self.task_id = ""
        self.live_task_id = ""
        self.voices: dict[str, Voice] = {}
        self._seed = number

    async def __aenter__(self) -> Self:
        client, wav, ogg = self.client, media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_OGG
        media, live = room_pb2.ROOM_CLOCK_MEDIA, room_pb2.ROOM_CLOCK_ARRIVAL
        self.task_id = await record(client, self.room_id, media, [wav, ogg], app_id=self.app_id)
        self.live_task_id = await record(client, self.live_room_id, live, [wav], app_id=self.app_id)
        randomness = np.random.default_rng(self._seed)
        packets = itertools.cycle(opus_packets(_OPUS_PACKETS, self._seed))
        pcm, opus = media_pb2.CODEC_PCM_S16LE, media_pb2.CODEC_OPUS

        def noise() -> bytes:
            return noise_frame(randomness)

        self.voices = {
            "pcm": Voice(client, self.room_id, "pcm", pcm, noise, app_id=self.app_id),
            "opus": Voice(client, self.room_id, "opus", opus, lambda: next(packets), app_id=self.app_id),
            "live": Voice(client, self.live_room_id, "live", pcm, noise, is_live=True, app_id=self.app_id),
        }
        try:
            for voice in self.voices.values():
                await voice.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def goes_on(self) -> None:
        """Returns when what everybody says now is safe."""
        for voice in self.voices.values():
            await voice.goes_on()

    async def check(self) -> None:
        """Ends the recordings. Raises AssertionError unless they hold exactly what was published."""
        for voice in self.voices.values():
            await voice.stop()
        files: dict[tuple[str, media_pb2.Container.ValueType], segment_pb2.Segment] = {}
        for task_id in (self.task_id, self.live_task_id):
            await self.client.recording.StopRecord(
                task_pb2.StopRecordRequest(app_id=self.app_id, task_id=task_id)
            )
            async with asyncio.timeout(30):
                described = await self.client.wait_until_complete(self.app_id, task_id)
            for segment in described.segments:
                if segment.user_id in self.voices:
                    assert (segment.user_id, segment.container) not in files, described.segments
                    files[segment.user_id, segment.container] = segment
        wav, ogg = media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_OGG
        assert set(files) == {("pcm", wav), ("opus", wav), ("opus", ogg), ("live", wav)}
        for (user_id, _), segment in files.items():
            counts = segment_pb2.FrameStatistics(recorded=len(self.voices[user_id].frames))
            assert segment.statistics == counts, segment
            assert not segment.interrupted
            assert segment.state == segment_pb2.SEGMENT_STATE_UPLOADED
        pcm, live = self._published("pcm"), self._published("live")
        np.testing.assert_array_equal(samples_of(path_of(files["pcm", wav])), pcm)
        np.testing.assert_array_equal(without_silence(samples_of(path_of(files["live", wav]))), live)
        assert packets_of(path_of(files["opus", ogg])) == self.voices["opus"].frames
        assert (
            files["opus", wav].sample_count == len(self.voices["opus"].frames) * RATE_HZ * FRAME_NS // 10**9
        )

    async def aclose(self) -> None:
        """Ends the publishers, whatever became of them."""
        for voice in self.voices.values():
            await voice.aclose()

    def _published(self, user_id: str) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        return np.frombuffer(b"".join(self.voices[user_id].frames), "<i2")
