"""What a segment is of, and which frame is complete where in it."""

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
