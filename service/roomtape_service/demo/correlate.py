"""Where in a recording a clip is, and how much of the recording it explains.

1. A clip is found by normalised cross-correlation: at each lag the clip is compared with the piece of the recording
   that it would cover; 1 is the same sound at any volume, 0 has nothing to do with it.
2. Around that lag, each piece of the clip is found again by itself: in a live room the recorder makes pauses a
   little longer or shorter to follow the publisher's clock, so pieces may be displaced by milliseconds.
3. A mix is explained by fitting the volume of each clip, its pieces where they were found; what is left over is what
   none of them said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roomtape_service.demo.audio import RATE_HZ, Samples

__all__ = ["Match", "MixFit", "find", "fit_mix"]

# Below -80 dBFS a piece of a recording is silence, with which nothing correlates.
_SILENCE_RMS = 1e-4
# A correction spoils the piece in which it happens, so pieces are short.
PIECE_SAMPLES = RATE_HZ // 2
# What a live recording follows in seconds stays far below this.
MOST_DISPLACED_SAMPLES = RATE_HZ // 100
# Pieces that are so much softer than the clip are pauses, and have no place of their own.
_PAUSE_RATIO = 0.2


@dataclass(frozen=True, slots=True)
class Match:
    """Where a clip is in a recording; lags are samples of 48 kHz from the recording's start, negative before it."""

    lag_samples: int
    """Where the clip begins."""
    piece_lags: tuple[int, ...]
    """The same as each piece of the clip says."""
    coefficient: float
    """How alike the clip and the recording are, piece by piece."""

    @property
    def lag_seconds(self) -> float:
        """Where the clip begins."""
        return self.lag_samples / RATE_HZ

    @property
    def displaced_seconds(self) -> float:
        """How far pieces are displaced against each other."""
        return (max(self.piece_lags) - min(self.piece_lags)) / RATE_HZ


@dataclass(frozen=True, slots=True)
class MixFit:
    """How a mix is made of clips."""

    gains: tuple[float, ...]
    """The volume of each clip in the mix; 1 is as it was spoken, 0 is not there."""

    explained: float
    """Which part of the mix's energy the clips together are."""


def find(recording: Samples, clip: Samples) -> Match:
    """Where the clip is most alike to the recording; what lies outside of the recording is silence."""
    lag = _best_lag(recording, clip, -len(clip), len(recording))
    loud = _PAUSE_RATIO * _rms(clip)
    lags: list[int] = []
    heard: list[Samples] = []
    for start, piece in _pieces(clip):
        place = lags[-1] if lags else lag
        if _rms(piece) > loud:
            first = lag + start - MOST_DISPLACED_SAMPLES
            place = _best_lag(recording, piece, first, first + 2 * MOST_DISPLACED_SAMPLES) - start
        lags.append(place)
        heard.append(_cut(recording, place + start, len(piece)))
    return Match(lag, tuple(lags), _coefficient(np.concatenate(heard), clip))


def fit_mix(mix: Samples, clips: Sequence[Samples], matches: Sequence[Match]) -> MixFit:
    """The volumes at which the clips, where they were found, come closest to the mix."""
    columns = np.stack(
        [_placed(clip, match.piece_lags, len(mix)) for clip, match in zip(clips, matches, strict=True)],
        axis=1,
    )
    gains, *_ = np.linalg.lstsq(columns, mix, rcond=None)
    total = _energy(mix)
    left_over = _energy(mix - columns @ gains)
    return MixFit(tuple(float(gain) for gain in gains), 1 - left_over / total if total else 0.0)


def _best_lag(recording: Samples, clip: Samples, first: int, last: int) -> int:
    """The lag from `first` to `last` with the highest coefficient."""
    reach = len(clip)
    covered = _cut(recording, first, last - first + reach)
    lags = last - first + 1
    size = _fast_size(len(covered))
    products = np.fft.irfft(np.fft.rfft(covered, size) * np.conj(np.fft.rfft(clip, size)), size)[:lags]
    energy = np.concatenate(([0.0], np.cumsum(np.square(covered, dtype=np.float64))))
    windows = np.maximum(energy[reach:] - energy[:-reach], reach * _SILENCE_RMS**2)[:lags]
    return first + int(np.argmax(products / np.sqrt(windows)))


def _cut(recording: Samples, start: int, length: int) -> Samples:
    """A stretch of the recording, with silence where it has none."""
    before, after = max(0, -start), max(0, start + length - len(recording))
    inside = recording[max(0, start) : max(0, start + length)]
    return np.pad(inside, (min(before, length), min(after, length)))[:length]


def _placed(clip: Samples, lags: Sequence[int], length: int) -> Samples:
    placed = np.zeros(length, np.float32)
    for lag, (start, piece) in zip(lags, _pieces(clip), strict=True):
        begin = lag + start
        inside = slice(max(0, begin), max(0, min(length, begin + len(piece))))
        placed[inside] = piece[inside.start - begin : inside.stop - begin]
    return placed


def _pieces(clip: Samples) -> list[tuple[int, Samples]]:
    """Where each piece of a clip begins, and the piece."""
    return [(start, clip[start : start + PIECE_SAMPLES]) for start in range(0, len(clip), PIECE_SAMPLES)]


def _coefficient(one: Samples, other: Samples) -> float:
    floor = len(other) * _SILENCE_RMS**2
    energies = max(_energy(one), floor) * max(_energy(other), floor)
    return float(np.dot(one.astype(np.float64), other)) / float(np.sqrt(energies))


def _energy(samples: npt.NDArray[np.floating]) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))


def _rms(samples: Samples) -> float:
    return float(np.sqrt(_energy(samples) / max(1, len(samples))))


def _fast_size(least: int) -> int:
    # A product of a small number and a power of two, at most an eighth too large.
    step = 1 << max(0, least.bit_length() - 4)
    return -(-least // step) * step
