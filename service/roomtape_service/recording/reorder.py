"""Frames back into the order of their sequence numbers."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from roomtape_service.clock import NANOSECONDS

__all__ = ["HOLD_NS", "Reorder", "TrackFrame"]

HOLD_NS: Final = NANOSECONDS // 5
"""How long a missing frame is waited for, by arrival or by media time, whichever is over first."""
_HELD_MAX = 512
"""A batch may have as many frames."""
_MISSING_MAX = 4096
"""Lost numbers that are remembered, to tell a late frame from one that comes again."""

_LOST_MAX = 1 << 32
"""Frames of four months at the shortest: no more count as lost at once, or their sums do not fit into 64 bits."""


class TrackFrame(NamedTuple):
    """A frame as its publisher sent it; times by the publisher's clocks."""

    sequence: int
    media_ns: int
    capture_ns: int
    payload: bytes


class Reorder:
    """Hands out frames in order, each once, and counts what was out of order.

    `duplicated`: came again; `reordered`: came after a higher number and was put in its place; `late`: came after its
    place was given up. `lost` is what `late` did not take back.
    """

    def __init__(self, next_sequence: int | None) -> None:
        """`next_sequence` None: the first frame that comes is the first."""
        self.next_sequence = next_sequence
        self.duplicated = 0
        self.reordered = 0
        self.late = 0
        self._held: dict[int, tuple[int, TrackFrame]] = {}
        self._missing: set[int] = set()
        self._newest = 0

    @property
    def is_waiting(self) -> bool:
        """Whether frames are held because one before them is missing."""
        return bool(self._held)

    def follows(self, sequence: int) -> bool:
        """Whether it is the next, and nothing is held; then it counts as handed out."""
        if sequence != self.next_sequence or self._held:
            return False
        self.next_sequence = sequence + 1
        self._newest = sequence
        return True

    def follow(self, frames: Sequence[TrackFrame]) -> int:
        """How many of `frames`, from the first on, are next, while nothing is held; they count as handed out."""
        first = self.next_sequence
        if first is None or self._held:
            return 0
        following = first
        for frame in frames:
            if frame[0] != following:
                break
            following += 1
        if following > first:
            self.next_sequence = following
            self._newest = following - 1
        return following - first

    def push(self, frame: TrackFrame, now_ns: int) -> Iterator[tuple[TrackFrame, int]]:
        """Takes a frame; yields what is in order now, each with how many are lost before it."""
        sequence = frame.sequence
        if self.next_sequence is None:
            self.next_sequence = sequence
        if sequence < self.next_sequence:
            if sequence in self._missing:
                self._missing.discard(sequence)
                self.late += 1
            else:
                self.duplicated += 1
            return
        if self.follows(sequence):
            yield frame, 0
            return
        if sequence in self._held:
            self.duplicated += 1
            return
        if sequence < self._newest:
            self.reordered += 1
        self._newest = max(self._newest, sequence)
        self._held[sequence] = (now_ns, frame)
        yield from self.release(now_ns)

    def release(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[TrackFrame, int]]:
        """Yields what has waited long enough, or `everything`."""
        held = self._held
        lost = 0
        while held and self.next_sequence is not None:
            first = held.pop(self.next_sequence, None)
            if first is not None:
                self.next_sequence += 1
                yield first[1], lost
                lost = 0
                continue
            sequence = min(held)
            if not everything and not self._is_over(*held[sequence], now_ns):
                return
            lost = min(lost + sequence - self.next_sequence, _LOST_MAX)
            self._miss(self.next_sequence, sequence)
            self.next_sequence = sequence

    def _is_over(self, since_ns: int, frame: TrackFrame, now_ns: int) -> bool:
        if now_ns - since_ns >= HOLD_NS or len(self._held) >= _HELD_MAX:
            return True
        return self._held[max(self._held)][1].media_ns - frame.media_ns >= HOLD_NS

    def _miss(self, start: int, end: int) -> None:
        if len(self._missing) > _MISSING_MAX:
            self._missing.clear()
        self._missing.update(range(max(start, end - _MISSING_MAX), end))
