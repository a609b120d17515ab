"""PCM of any rate to the rate and the one channel of the mix, sample-aligned from spurt to spurt."""

from typing import Final

import av
import numpy as np
import numpy.typing as npt

from roomtape_service.recording.decoding import to_mono

__all__ = ["MIX_RATE", "MonoStream"]

MIX_RATE: Final = 48_000
"""What mixes are made at."""

Block = tuple[int, npt.NDArray[np.int16]]
"""Samples at MIX_RATE, and the position of the first."""


class MonoStream:
    """Turns one track's samples into blocks for the mix.

    At 48 kHz mono samples pass as they are. At other rates each run of contiguous samples is resampled by itself, so
    that no rounding adds up: its first sample lies where the track's own position says.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._resampler: av.AudioResampler | None = None
        self._expected = 0
        self._next = 0

    def push(self, position: int, pcm: bytes) -> list[Block]:
        """Samples of the track at `position`, counted at its own rate."""
        samples = to_mono(pcm, self._channels)
        if self._rate == MIX_RATE:
            return [(position, samples)] if samples.size else []
        blocks: list[Block] = []
        if self._resampler is None or position != self._expected:
            blocks += self.end_run()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=MIX_RATE)
            self._next = self.position_of(position)
        self._expected = position + samples.size
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        return blocks + self._collect(self._resampler.resample(frame))

    def end_run(self) -> list[Block]:
        """What a resampler still holds of the run before; to be called where a gap begins."""
        if self._resampler is None:
            return []
        resampler, self._resampler = self._resampler, None
        return self._collect(resampler.resample(None))

    @property
    def held_from(self) -> int | None:
        """Where samples begin that a resampler still holds; None if there are none."""
        return self._next if self._resampler is not None else None

    def position_of(self, position: int) -> int:
        """A position of the track as one of the mix; rounded down."""
        return position * MIX_RATE // self._rate

    def _collect(self, frames: list[av.AudioFrame]) -> list[Block]:
        blocks: list[Block] = []
        for frame in frames:
            if frame.samples:
                values = np.frombuffer(bytes(frame.planes[0]), np.int16, frame.samples)
                blocks.append((self._next, values))
                self._next += frame.samples
        return blocks
