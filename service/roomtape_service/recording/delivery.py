"""What a track hands to the recordings that take it."""

from dataclasses import dataclass
from typing import NamedTuple

from roomtape_service.recording.protocol import GapReason

__all__ = ["Delivery", "MissingMedia", "Piece"]


class Piece(NamedTuple):
    """A frame in its place. One that was rejected has no samples, and lies where the track stood then."""

    sequence: int
    position: int
    """In samples of the track's rate since the room's epoch."""
    samples: int
    packet: bytes | None
    """The payload as it came; None if it can't be decoded."""
    duration: int
    """What the packet plays for; `samples` may be more or less where drift was made good."""
    pcm: bytes
    """Empty if no recording asked for it."""
    end_media_ns: int
    """Media time after the frame: with its end's position, the mapping to room time."""
    lost: int
    """Frames that are missing before it."""


@dataclass(frozen=True, slots=True)
class MissingMedia:
    """Positions between which media is missing for good."""

    start: int
    end: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a track has to give since the delivery before."""

    pieces: list[Piece]
    frontier: int | None
    """Up to where the track is final: what is no piece is silence. None before anything is known."""
    step_ns: int
    """The longest time between two batches: so long the publisher said nothing."""
    duplicated: int
    reordered: int
    late: int
    """Frames whose place had been given up as lost."""
    missing: tuple[MissingMedia, ...]
