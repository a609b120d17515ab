"""Frames of a track that are not acknowledged yet."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["HELD_BYTES_LIMIT", "HeldBatch", "HeldFrames"]

HELD_BYTES_LIMIT = 4 << 20
"""Held bytes for each of a publisher's tracks from which on they are not read: minutes of Opus, 40 s of PCM."""


@dataclass(frozen=True, slots=True)
class HeldBatch:
    """A batch as it came from the publisher; `sequence` is the highest in it.

    `muted_at_ns` is when the track was muted, if it was since the batch before.
    """

    sequence: int
    arrival_ns: int
    batch: bytes
    muted_at_ns: int | None = None


class HeldFrames:
    """Batches that a worker may have lost, oldest first, and where between them the track was muted."""

    def __init__(self) -> None:
        self.muted_at_ns: int | None = None
        """When the track was muted, if it was since the newest batch."""
        self._batches: deque[HeldBatch] = deque()
        self._bytes = 0

    def __iter__(self) -> Iterator[HeldBatch]:
        return iter(self._batches)

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def size(self) -> int:
        """Bytes of what is held."""
        return self._bytes

    @classmethod
    def of(cls, batches: Iterable[HeldBatch]) -> "HeldFrames":
        """Holds what was held before."""
        held = cls()
        held._batches.extend(batches)
        held._bytes = sum(len(each.batch) for each in held._batches)
        return held

    def hold(self, sequence: int, arrival_ns: int, batch: bytes) -> None:
        """Keeps a batch until `release` covers its highest sequence."""
        self._batches.append(HeldBatch(sequence, arrival_ns, batch, self.muted_at_ns))
        self._bytes += len(batch)
        self.muted_at_ns = None

    def mute(self, at_ns: int) -> None:
        """The track is muted from here on. What mutes it again before the next batch changes nothing."""
        if self.muted_at_ns is None:
            self.muted_at_ns = at_ns

    def release(self, sequence: int) -> None:
        """Lets go of the batches up to `sequence`.

        Batches whose frames came out of order stay until those before them are safe too: holding on for too long is
        harmless, since workers drop what they have.
        """
        batches = self._batches
        while batches and batches[0].sequence <= sequence:
            self._bytes -= len(batches.popleft().batch)

    def newest(self) -> int:
        """The highest sequence that is held; 0 when nothing is."""
        return max((batch.sequence for batch in self._batches), default=0)
