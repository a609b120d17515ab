"""The sum of voices by absolute position: silence is what nobody filled, and gaps can't add up.

Positions are samples of 48 kHz since the room's epoch.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from roomtape_service.recording.limiter import GRID, Limiter

__all__ = ["Mixer", "Voice"]


class Voice:
    """What one track has for the mix, not mixed yet; in order, without overlaps."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, npt.NDArray[np.int16]]] = deque()
        self.end = 0
        """After the last sample that came."""
        self.size = 0
        """Samples that are kept."""

    @property
    def start(self) -> int | None:
        """The first sample that is not mixed yet; None if there is none."""
        return self._blocks[0][0] if self._blocks else None

    def add(self, position: int, samples: npt.NDArray[np.int16], mixed: int) -> None:
        """Adds samples; those before `mixed` are too late and go."""
        late = mixed - position
        if late >= samples.size:
            return
        if late > 0:
            position, samples = mixed, samples[late:]
        self._blocks.append((position, samples))
        self.end = position + samples.size
        self.size += samples.size

    def add_to(self, total: npt.NDArray[np.int32], start: int) -> None:
        """Adds what lies in `total`, which begins at `start`."""
        end = start + len(total)
        for position, samples in self._blocks:
            if position >= end:
                return
            first, last = max(position, start), min(position + samples.size, end)
            total[first - start : last - start] += samples[first - position : last - position]

    def drop_before(self, position: int) -> None:
        """Forgets what is mixed."""
        blocks = self._blocks
        while blocks and blocks[0][0] + blocks[0][1].size <= position:
            self.size -= blocks.popleft()[1].size


class Mixer:
    """Sums voices from where it stands."""

    def __init__(self) -> None:
        self._limiter = Limiter()

    def rest(self, samples: int) -> None:
        """Silence passes."""
        self._limiter.rest(samples)

    def mix(self, voices: list[Voice], start: int, end: int, known: int) -> bytes:
        """PCM from `start` to `end`. Up to `known`, which is not before `end`, the voices are final."""
        # The limiter's grid is that of the positions; what lies before `start` on it counts as silent.
        lead = start % GRID
        total = np.zeros(lead + min(known, end + GRID) - start, np.int32)
        for voice in voices:
            voice.add_to(total[lead:], start)
        mixed = self._limiter.apply(total, lead + end - start)[lead:]
        for voice in voices:
            voice.drop_before(end)
        return mixed.tobytes()
