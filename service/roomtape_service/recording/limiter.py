"""Keeps a sum of voices within 16 bits without clipping it, and leaves it untouched where it is within."""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["GRID", "Limiter"]

GRID: Final = 240
"""Samples for which a peak is looked for: 5 ms at 48 kHz. The gain is a straight line from one to the next."""
_RELEASE: Final = 0.0125
"""How much gain comes back in a step of the grid: from half to full in 200 ms."""
_HIGHEST, _LOWEST = 32767, -32768


class Limiter:
    """Works on sums whose first sample lies on the grid of positions, so that the result does not depend on how they
    were cut into blocks."""

    def __init__(self) -> None:
        self._gain = 1.0

    def rest(self, samples: int) -> None:
        """Silence passes, and gain comes back."""
        self._gain = min(1.0, self._gain + _RELEASE * (samples // GRID))

    def apply(self, total: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int16]:
        """The first `count` samples within 16 bits.

        `count` is a multiple of GRID; `total` has one step more, by whose peak the gain goes down in time. Less than
        that is taken as followed by silence, and only allowed at an end.
        """
        if (
            self._gain == 1.0
            and int(total.max(initial=0)) <= _HIGHEST
            and int(total.min(initial=0)) >= _LOWEST
        ):
            return total[:count].astype(np.int16)
        steps = -(-count // GRID) + 1
        padded = np.zeros(steps * GRID, np.int32)
        known = min(len(total), len(padded))
        padded[:known] = total[:known]
        grid = padded.reshape(steps, GRID)
        needed = np.minimum(
            _HIGHEST / np.maximum(grid.max(axis=1), _HIGHEST), _LOWEST / np.minimum(grid.min(axis=1), _LOWEST)
        )
        nodes = np.empty(steps)
        gain = min(self._gain, float(needed[0]))
        for index in range(steps):
            before = needed[index - 1] if index else 1.0
            gain = min(gain + (_RELEASE if index else 0.0), float(needed[index]), float(before))
            nodes[index] = gain
        self._gain = min(1.0, float(nodes[-1]))
        ramp = np.arange(GRID) / GRID
        curve = nodes[:-1, None] + np.diff(nodes)[:, None] * ramp
        limited = np.rint(grid[:-1] * curve).reshape(-1)[:count]
        return np.clip(limited, _LOWEST, _HIGHEST).astype(np.int16)
