"""What a segment is of, and which frame is complete where in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from roomtape_service.recording.vocabulary import TrackCodec

__all__ = ["Format", "Mark"]


@dataclass(frozen=True, slots=True)
class Format:
    """What a segment is of."""

    codec: TrackCodec
    rate: int
    channels: int


class Mark(NamedTuple):
    """`key`'s frames up to `sequence` are complete at `end`; without a key it only says where silence ends.

    A checkpoint may lie at `end`, and anywhere after `free_from`. On the track, after the frame it is
    `track_end` samples of `track_rate` since the room's epoch, and `end_media_ns` by its media time.

    Of frames that follow each other, `size` samples each, there is one mark, whose `earlier` holds the media times
    after the frames before the last: a checkpoint may lie at the end of each.
    """

    end: int
    free_from: int
    key: str | None = None
    sequence: int = 0
    track_end: int = 0
    track_rate: int = 1
    end_media_ns: int = 0
    recorded: int = 0
    lost: int = 0
    earlier: Sequence[int] = ()
    size: int = 0

    @property
    def first_end(self) -> int:
        """Where the first of its frames is complete."""
        return self.end - self.size * len(self.earlier)

    def last_end(self, position: int) -> int:
        """Where the last of its frames is complete that is so at `position`, which is not before `first_end`."""
        return self.end - self.size * self._left(position)

    def split(self, position: int) -> tuple["Mark", "Mark"]:
        """The marks of the frames that are complete at a position between `first_end` and `end`, and of the rest."""
        left = self._left(position)
        done = len(self.earlier) + 1 - left
        head = self._replace(
            end=self.end - left * self.size,
            free_from=min(self.free_from, self.end - left * self.size),
            sequence=self.sequence - left,
            track_end=self.track_end - left * self.size,
            end_media_ns=self.earlier[done - 1],
            recorded=done,
            earlier=self.earlier[: done - 1],
        )
        return head, self._replace(recorded=left, lost=0, earlier=self.earlier[done:])

    def _left(self, position: int) -> int:
        return -((position - self.end) // self.size)
