"""Where in a recording a clip is, and how much of the recording it explains.

A clip is found by normalised cross-correlation: at each lag the clip is compared with the piece of the recording that
it would cover, 1 is the same sound at any volume, 0 has nothing to do with it. A mix is explained by fitting the
volume of each clip at its lag; what is left over is what nobody of them said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roomtape_service.demo.audio import RATE_HZ, Samples

__all__ = ["Match", "MixFit", "find", "fit_mix"]

# Below -80 dBFS a piece of a recording is silence, with which nothing correlates.
_SILENCE_RMS = 1e-4


@dataclass(frozen=True, slots=True)
class Match:
    """Where a clip begins in a recording, in samples of 48 kHz (negative: before it), and how alike they are."""

    lag_samples: int
    coefficient: float

    @property
    def lag_seconds(self) -> float:
        """Where the clip begins, in seconds from the recording's first sample."""
        return self.lag_samples / RATE_HZ


@dataclass(frozen=True, slots=True)
class MixFit:
    """How a mix is made of clips."""

    gains: tuple[float, ...]
    """The volume of each clip in the mix; 1 is as it was spoken, 0 is not there."""

    explained: float
    """Which part of the mix's energy the clips together are."""


def find(recording: Samples, clip: Samples) -> Match:
    """The lag at which the whole clip is most alike to the recording; what lies outside of it is silence."""
    reach = len(clip)
    padded = np.pad(recording, reach)
    lags = len(padded) - reach + 1
    size = _fast_size(len(padded))
    spectrum = np.fft.rfft(padded, size) * np.conj(np.fft.rfft(clip, size))
    products = np.fft.irfft(spectrum, size)[:lags]
    energy = np.concatenate(([0.0], np.cumsum(np.square(padded, dtype=np.float64))))
    floor = reach * _SILENCE_RMS**2
    windows = np.maximum(energy[reach:] - energy[:-reach], floor)[:lags]
    clip_energy = max(float(np.sum(clip.astype(np.float64) ** 2)), floor)
    coefficients = products / np.sqrt(windows * clip_energy)
    best = int(np.argmax(coefficients))
    return Match(best - reach, float(coefficients[best]))


def fit_mix(mix: Samples, parts: Sequence[tuple[Samples, int]]) -> MixFit:
    """The volumes at which the clips, each at its lag, come closest to the mix."""
    columns = np.stack([_placed(clip, lag, len(mix)) for clip, lag in parts], axis=1)
    target = mix.astype(np.float64)
    gains, *_ = np.linalg.lstsq(columns, target, rcond=None)
    total = float(np.sum(target**2))
    left_over = float(np.sum((target - columns @ gains) ** 2))
    return MixFit(tuple(float(gain) for gain in gains), 1 - left_over / total if total else 0.0)


def _fast_size(least: int) -> int:
    # A product of a small number and a power of two, at most an eighth too large.
    step = 1 << max(0, least.bit_length() - 4)
    return -(-least // step) * step


def _placed(clip: Samples, lag: int, length: int) -> npt.NDArray[np.float64]:
    placed = np.zeros(length)
    start, end = max(lag, 0), min(lag + len(clip), length)
    if start < end:
        placed[start:end] = clip[start - lag : end - lag]
    return placed
