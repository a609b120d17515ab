"""Forty-five minutes with pauses, each publisher on a sample clock that is wrong in its own way."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from tests.support.audio import Samples, noise, opus_decode
from tests.support.hearing import path_of, select
from tests.support.stage import MS, OPUS, SECOND, START_NS, TRACK, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

WAV = media_pb2.CONTAINER_WAV
MINUTES = 45
PERIOD_NS = 6 * SECOND
SPURTS = MINUTES * 60 * SECOND // PERIOD_NS
SPURT_SECONDS = 0.4
WITHIN_NS = 1 * MS
_LOUD = 1500
_PATTERN = slice(2000, 4000)
"""Samples of a spurt by which it is found."""
_REACH = 480


@dataclass
class Drifting:
    """A speaker who says the same every six seconds, and whose sample clock is wrong by `drift_ppm`."""

    speaker: Speaker
    drift_ppm: int
    delay_ns: int
    """After the start of each period."""

    def __post_init__(self) -> None:
        sound = self.speaker.sound
        spurt = noise(SPURT_SECONDS, sound.rate, seed=1)
        # The first sample is loud.
        spurt[0] = 2 * _LOUD
        self.payloads = sound.frames(spurt)

    def times(self, spurt: int, frame: int) -> tuple[int, int]:
        """Media time by the speaker's sample clock and capture time of a frame."""
        true_ns = spurt * PERIOD_NS + self.delay_ns
        media_ns = true_ns - true_ns * self.drift_ppm // 1_000_000 + frame * self.speaker.sound.frame_ns
        return media_ns, START_NS + media_ns + round(media_ns * self.drift_ppm / (1_000_000 - self.drift_ppm))

    async def speak(self, spurt: int) -> None:
        for number, payload in enumerate(self.payloads):
            media_ns, capture_ns = self.times(spurt, number)
            await self.speaker.live().publish(
                TRACK, payload, capture_time_ns=capture_ns, media_time_ns=media_ns
            )

    def errors_ns(self, file: segment_pb2.Segment) -> list[int]:
        """How much later than it should each spurt lies in a file."""
        is_opus = self.speaker.sound == OPUS
        pattern = opus_decode(self.payloads)[_PATTERN].astype(np.float64) if is_opus else None
        rate, samples = file.sample_rate_hz, mapped(file)
        errors = []
        for spurt in range(SPURTS):
            since_ns = self.times(spurt, 0)[1] - file.start_time.ToNanoseconds()
            at = since_ns * rate // SECOND
            if pattern is None:
                first = max(0, at - rate // 10)
                found = first + int(np.flatnonzero(np.abs(samples[first : at + rate // 10]) > _LOUD)[0])
            else:
                # What the decoder still had of the spurt before sounds into the first packet.
                first = at + _PATTERN.start - _REACH
                window = samples[first : first + len(pattern) + 2 * _REACH].astype(np.float64)
                found = at - _REACH + int(np.argmax(np.correlate(window, pattern)))
            errors.append(found * SECOND // rate - since_ns)
        return errors


def mapped(file: segment_pb2.Segment) -> Samples:
    """The samples of a mono WAV file, which is too long to be read."""
    path = path_of(file)
    header = path.stat().st_size - 2 * file.sample_count
    samples: Samples = np.memmap(path, "<i2", "r", offset=header)
    return samples


async def test_a_long_room_ends_where_it_should(client: Client) -> None:
    cast = [
        Drifting(Speaker("ada", 0, Sound(media_pb2.CODEC_PCM_S16LE, 16_000, frame_ms=100)), 100, 0),
        Drifting(Speaker("ben", 0, Sound(media_pb2.CODEC_PCM_S16LE, 8_000, frame_ms=100)), -100, 2 * SECOND),
        Drifting(Speaker("cleo", 0, OPUS), 100, 4 * SECOND),
    ]
    stage = Stage(client, "long")
    await stage.record(task_pb2.RECORD_MODE_SINGLE_AND_MIXED, singles=[WAV], mixes=[WAV])
    await stage.join(*(each.speaker for each in cast))
    began = time.monotonic()
    for spurt in range(SPURTS):
        for each in cast:
            await each.speak(spurt)
    stage.now_ns = START_NS + SPURTS * PERIOD_NS
    for each in cast:
        each.speaker.live().advance(TRACK, stage.now_ns)
    segments = await stage.end()
    took = time.monotonic() - began
    assert len(segments) == 4
    (mix,) = select(segments, WAV)
    worst = 0
    for each in cast:
        (single,) = select(segments, WAV, each.speaker.user_id)
        for file in (single, mix):
            errors = each.errors_ns(file)
            worst = max(worst, *map(abs, errors))
            print(f"{file.user_id or 'mix'}: {min(errors) / MS:.3f} … {max(errors) / MS:.3f} ms")
            assert abs(file.end_time.ToNanoseconds() - stage.now_ns) < WITHIN_NS
            assert file.duration.ToNanoseconds() == file.sample_count * SECOND // file.sample_rate_hz
    print(f"recorded in {took:.1f} s, analysed in {time.monotonic() - began - took:.1f} s")
    for file in segments:
        # Together more than half a gigabyte, which nobody wants to keep.
        path_of(file).unlink()
    assert worst < WITHIN_NS
