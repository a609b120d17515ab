"""The publishers, in a process of their own that keeps its own diaries: what was published, and what was acknowledged.

`python -m tests.faults.publisher TARGET FOLDER SEED [ROOM…]`: everybody in the cast plays their part until SIGTERM,
then they leave and wait until all is safe. FOLDER gets each one's diary, and `<name>.statistics` at the end.
"""

import asyncio
import functools
import json
import random
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from roomtape.client import Client, PublisherSettings, RetrySettings, RoomtapeError
from roomtape.v1 import ingest_pb2, media_pb2
from tests.faults.cast import (
    APP,
    CAST,
    FRAME_MS,
    RATE_HZ,
    TRACK,
    Behaviour,
    Role,
    Scene,
    role_name,
)
from tests.faults.diary import Diary, PublishedFrame
from tests.support.audio import opus_packets

__all__ = ["FAST_FACTOR"]

FAST_FACTOR = 8.0
"""How much faster than real time a `FAST` one plays."""

_FRAME_NS = FRAME_MS * 1_000_000
_FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
_LOOP_SECONDS = 60.0
_OPUS_BPS = 48_000
# In a mix one must be heard beside the other: they are alike below 4 kHz.
_OPUS_DEVIATION = 2500
_PCM_PEAK = 14_000
_TALK_FRAMES = 100
_SILENT_FRAMES = 30
_AWAY_FRAMES = 50
_REOPEN_SECONDS = 0.2
# On a busy machine the players may be late themselves.
_SETTINGS = PublisherSettings(outage_seconds=None, open_seconds=120.0, told_silence=True)

_Payloads = Callable[[], bytes]


class _Player:
    """One role: knows what comes next, and when it is over."""

    def __init__(
        self, client: Client, scene: Scene, role: Role, folder: Path, seed: int, stop: asyncio.Event
    ) -> None:
        self._client = client
        self._scene = scene
        self._role = role
        self._stop = stop
        self._diary = Diary(folder, role_name(scene, role))
        self._path = folder / f"{role_name(scene, role)}.statistics"
        self._payload = _payloads(role, seed ^ zlib.crc32(role.user_id.encode()))
        self._session = 0
        self._pace = FAST_FACTOR if role.behaviour is Behaviour.FAST else 1.0
        self._captured: dict[int, int] = {}

    async def play(self) -> None:
        """Until it is told to stop, and all is safe."""
        try:
            if self._role.behaviour is Behaviour.FORGET:
                await self._forget()
            else:
                await self._remember()
        finally:
            self._diary.close()

    async def _remember(self) -> None:
        start_ns = time.time_ns()
        began = time.monotonic()
        frames = 0
        statistics = []
        while not self._stop.is_set():
            self._session += 1
            self._captured.clear()
            publisher = self._client.publisher(
                APP,
                self._scene.room_id,
                self._role.user_id,
                [_offer(self._role)],
                start_time_ns=start_ns + frames * _FRAME_NS if self._scene.is_media else None,
                settings=_SETTINGS,
                on_acknowledged=self._acknowledged,
            )
            await publisher.open()
            # A live room's time is the machine's: who needed long to come in says nothing of what was before.
            frames = max(frames, self._frames_at(time.monotonic() - began))
            first, sequence = frames, 0
            while not self._stop.is_set():
                phase = (frames - first) % (_TALK_FRAMES + _SILENT_FRAMES)
                is_silent = (
                    self._role.behaviour in (Behaviour.MUTE, Behaviour.PAUSE) and phase >= _TALK_FRAMES
                )
                if self._role.behaviour is Behaviour.MUTE and phase in (0, _TALK_FRAMES) and frames > first:
                    publisher.mute(TRACK, phase == _TALK_FRAMES)
                if not is_silent:
                    sequence += 1
                    capture_ns = start_ns + frames * _FRAME_NS
                    payload = self._payload()
                    self._captured[sequence] = capture_ns
                    self._diary.published(PublishedFrame(self._session, sequence, capture_ns, payload))
                    await publisher.publish(
                        TRACK,
                        payload,
                        capture_time_ns=capture_ns,
                        media_time_ns=(frames - first) * _FRAME_NS,
                    )
                frames += 1
                if is_silent:
                    publisher.advance(TRACK, start_ns + frames * _FRAME_NS)
                await _until(began + frames * FRAME_MS / 1000 / self._pace)
                if self._role.behaviour is Behaviour.RETURN and frames - first >= _TALK_FRAMES:
                    break
            await publisher.close()
            statistics.append(asdict(publisher.statistics()))
            self._path.write_text(json.dumps(statistics))
            if self._role.behaviour is Behaviour.RETURN:
                frames = self._frames_at(time.monotonic() - began) + _AWAY_FRAMES
                await _until(began + frames * FRAME_MS / 1000, self._stop)

    def _frames_at(self, seconds: float) -> int:
        return 0 if self._scene.is_media else int(seconds * 1000 / FRAME_MS)

    def _acknowledged(self, _track_id: str, sequence: int) -> None:
        self._diary.acknowledged(self._session, sequence, self._captured.get(sequence, 0))
        for each in [each for each in self._captured if each < sequence]:
            del self._captured[each]

    async def _forget(self) -> None:
        """As a publisher that keeps nothing: what a broken stream lost is lost."""
        start_ns, began = time.time_ns(), time.monotonic()
        opening = ingest_pb2.PublishOpen(
            app_id=APP,
            room_id=self._scene.room_id,
            user_id=self._role.user_id,
            publish_session_id=f"forget-{start_ns}",
            tracks=[_offer(self._role)],
        )
        self._session = 1
        sequence = 0
        is_open = False

        async def requests() -> AsyncIterator[ingest_pb2.PublishRequest]:
            nonlocal sequence
            first = ingest_pb2.PublishRequest(open=opening)
            first.open.sent_time.FromNanoseconds(time.time_ns())
            yield first
            while not self._stop.is_set():
                batch = ingest_pb2.FrameBatch(track_id=TRACK)
                while len(batch.frames) < 5:
                    # Frames that were captured while there was no stream are gone, with their numbers.
                    sequence = max(sequence + 1, int((time.monotonic() - began) * 1000 / FRAME_MS))
                    await _until(began + (sequence + 1) * FRAME_MS / 1000)
                    frame = ingest_pb2.Frame(sequence=sequence, payload=self._payload())
                    frame.media_time.FromNanoseconds((sequence - 1) * _FRAME_NS)
                    capture_ns = start_ns + sequence * _FRAME_NS
                    frame.capture_time.FromNanoseconds(capture_ns)
                    batch.frames.append(frame)
                    if is_open:
                        self._captured[sequence] = capture_ns
                        self._diary.published(PublishedFrame(1, sequence, capture_ns, frame.payload))
                batch.sent_time.FromNanoseconds(start_ns + (sequence + 1) * _FRAME_NS)
                yield ingest_pb2.PublishRequest(frames=batch)
            last = ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())
            last.close.sent_time.FromNanoseconds(start_ns + (sequence + 1) * _FRAME_NS)
            yield last

        while True:
            call = self._client.ingest.Publish(requests())
            try:
                async for response in call:
                    match response.WhichOneof("message"):
                        case "opened":
                            is_open = True
                        case "acknowledgement":
                            self._acknowledged(TRACK, response.acknowledgement.sequence)
                        case "goodbye" if response.goodbye.reason == ingest_pb2.GOODBYE_REASON_CLOSED:
                            return
                        case _:
                            pass
            except RoomtapeError:
                pass
            is_open = False
            await asyncio.sleep(_REOPEN_SECONDS)


def _offer(role: Role) -> ingest_pb2.TrackOffer:
    if role.is_opus:
        return ingest_pb2.TrackOffer(track_id=TRACK, codec=media_pb2.CODEC_OPUS)
    return ingest_pb2.TrackOffer(
        track_id=TRACK, codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=RATE_HZ, channels=role.channels
    )


def _payloads(role: Role, seed: int) -> _Payloads:
    randomness = np.random.default_rng(seed)
    if not role.is_opus:
        # No two frames alike, so that a sample can be told from every other.
        return lambda: (
            randomness.integers(-_PCM_PEAK, _PCM_PEAK, _FRAME_SAMPLES * role.channels).astype("<i2").tobytes()
        )
    packets = _packets()
    at = int(randomness.integers(len(packets)))

    def following() -> bytes:
        nonlocal at
        at = (at + 1) % len(packets)
        return packets[at]

    return following


@functools.cache
def _packets() -> Sequence[bytes]:
    """Noise of the frequencies of speech: what codecs keep, and different at all times."""
    noise = np.random.default_rng(1).normal(0, 1, round(_LOOP_SECONDS * RATE_HZ))
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
    spectrum[(hertz < 200) | (hertz > 3000)] = 0
    signal = np.fft.irfft(spectrum, len(noise))
    signal *= _OPUS_DEVIATION / signal.std()
    return opus_packets(np.clip(signal, -32_000, 32_000).astype(np.int16), _OPUS_BPS, FRAME_MS)[
        : round(_LOOP_SECONDS * 1000 / FRAME_MS)
    ]


async def _until(moment: float, stop: asyncio.Event | None = None) -> None:
    seconds = moment - time.monotonic()
    if seconds <= 0:
        await asyncio.sleep(0)
    elif stop is None:
        await asyncio.sleep(seconds)
    else:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()


async def main(target: str, folder: Path, seed: int, rooms: Sequence[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    retry = RetrySettings(max_seconds=0.5)
    dice = random.Random(seed)
    async with Client(target, retry=retry) as client:
        players = [
            _Player(client, scene, role, folder, dice.getrandbits(30), stop)
            for scene, role in CAST
            if not rooms or scene.room_id in rooms
        ]
        async with asyncio.TaskGroup() as group:
            for player in players:
                group.create_task(player.play())


if __name__ == "__main__":
    _target, _folder, _seed, *_rooms = sys.argv[1:]
    asyncio.run(main(_target, Path(_folder), int(_seed), _rooms))
