"""Finding what was said in what was recorded, wherever it lies: exactly, or as a codec keeps it.

Nothing here looks at times: a stretch must be found behind the one before, whole and once. So it holds over gaps, and
over clocks that were set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support.audio import Samples

__all__ = ["Found", "find_exactly", "find_like"]

_RATE_HZ = 48_000
_NEEDLE_SAMPLES = 960
_COARSE_HZ = 8_000
_HIGHEST_HZ = 3_000
"""What the publishers say lies below, or everywhere; so little is enough to compare by."""
_WINDOW_SECONDS = 0.25
_NEAR_SECONDS = 0.04
_REACHES = tuple(round(seconds * _COARSE_HZ) for seconds in (1, 6, 30, 10**5))
"""How far behind it is looked for then: near first, since what is said comes round again after a minute."""
_FAR_EVERY = 8
"""Where one is not there, only each so many of those behind it are looked for that far: it takes long."""
_ALIKE = 0.3
"""Noise that has nothing to do with a window has a correlation with it of 0.1 at most."""

_Signal = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a stretch is, by sample."""

    start: int
    end: int


def find_exactly(recorded: Samples, stretches: Sequence[Samples]) -> list[Found]:
    """Where each stretch is, sample for sample. AssertionError for one that is not there."""
    size = recorded.dtype.itemsize * (1 if recorded.ndim == 1 else recorded.shape[1])
    data = np.ascontiguousarray(recorded).tobytes()
    found: list[Found] = []
    at = 0
    for number, stretch in enumerate(stretches):
        needle = stretch[:_NEEDLE_SAMPLES].tobytes()
        place = data.find(needle, at * size)
        assert place >= 0, f"the beginning of stretch {number} of {len(stretches)} is not there"
        start = place // size
        got = recorded[start : start + len(stretch)]
        if len(got) < len(stretch) or not np.array_equal(got, stretch):
            different = np.flatnonzero((got != stretch[: len(got)]).reshape(len(got), -1).any(axis=1))
            first = int(different[0]) if len(different) else len(got)
            raise AssertionError(
                f"stretch {number} of {len(stretches)}: sample {first} of {len(stretch)} (frame "
                f"{first // _NEEDLE_SAMPLES}) is the first that differs"
            )
        at = start + len(stretch)
        found.append(Found(start, at))
    return found


def find_like(recorded: Samples, stretches: Sequence[Samples], rate: int) -> None:
    """Looks for each quarter of a second of each stretch. AssertionError for one that is not there.

    `recorded` may have another rate than the stretches' 48 kHz, and other voices in it.
    """
    heard = _coarse(recorded, rate)
    window, near = round(_WINDOW_SECONDS * _COARSE_HZ), round(_NEAR_SECONDS * _COARSE_HZ)
    at = 0
    place: int | None = 0
    missing: list[str] = []
    count = 0
    for number, stretch in enumerate(stretches):
        said = _coarse(stretch, _RATE_HZ)
        for first in range(near, len(said) - window + 1, window):
            count += 1
            needle = said[first : first + window]
            if not needle.any():
                at += window
                continue
            # Behind a segment's end, or a silence, it goes on somewhere.
            for reach in (near, *(_REACHES if place is not None or not count % _FAR_EVERY else ())):
                place = _best(heard, needle, max(0, at - near), at + window + reach)
                if place is not None:
                    break
            if place is None:
                missing.append(f"{number}:{first / _COARSE_HZ:.2f}")
                at += window
            else:
                at = place + window
    assert not missing, f"{len(missing)} of {count} windows are not heard (stretch:seconds): {missing[:8]}"


def _best(heard: _Signal, needle: _Signal, start: int, end: int) -> int | None:
    """Where in `heard[start:end]` the needle is."""
    hay = heard[start:end]
    if len(hay) < len(needle):
        return None
    size = 1 << (len(hay) + len(needle) - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(hay, size) * np.conj(np.fft.rfft(needle, size)), size)
    products = products[: len(hay) - len(needle) + 1]
    sums = np.concatenate([[0.0], np.cumsum(hay.astype(np.float64) ** 2)])
    energy = np.maximum(sums[len(needle) :] - sums[: -len(needle)], 1.0)
    alike = products / (np.sqrt(energy) * float(np.linalg.norm(needle)))
    place = int(np.argmax(alike))
    return start + place if alike[place] >= _ALIKE else None


def _coarse(samples: Samples, rate: int) -> _Signal:
    """What lies below 3 kHz, at 8 kHz."""
    mono = (samples if samples.ndim == 1 else samples.mean(axis=1)).astype(np.float32)
    # A length with large prime factors takes minutes.
    unit = rate // math.gcd(rate, _COARSE_HZ)
    size = unit << max(0, (-(-len(mono) // unit) - 1).bit_length())
    count = size * _COARSE_HZ // rate
    spectrum = np.fft.rfft(mono, size)[: count // 2 + 1]
    spectrum[round(_HIGHEST_HZ * size / rate) :] = 0
    coarse = np.fft.irfft(spectrum, count) * (count / size)
    return np.asarray(coarse[: len(mono) * _COARSE_HZ // rate], np.float32)
