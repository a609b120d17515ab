"""What a track hands to the recordings that take it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from roomtape_service.recording.protocol import GapReason

__all__ = ["Delivery", "MissingMedia", "Piece", "Run"]


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


class Run(NamedTuple):
    """Frames that follow each other without a gap, each as long as the others and as its packet plays."""

    sequence: int
    """Of the first."""
    position: int
    """Of the first, in samples of the track's rate since the room's epoch."""
    size: int
    """Samples of each."""
    packets: Sequence[bytes]
    pcm: bytes
    """Of all; empty if no recording asked for it."""
    ends_media_ns: Sequence[int]
    """Media time after each."""

    @property
    def samples(self) -> int:
        """Of all frames."""
        return self.size * len(self.packets)

    @property
    def last_sequence(self) -> int:
        """Of the last frame."""
        return self.sequence + len(self.packets) - 1

    def pieces(self) -> Iterator[Piece]:
        """The frames one by one."""
        block = len(self.pcm) // len(self.packets)
        for index, (packet, end_media_ns) in enumerate(zip(self.packets, self.ends_media_ns, strict=True)):
            yield Piece(
                sequence=self.sequence + index,
                position=self.position + index * self.size,
                samples=self.size,
                packet=packet,
                duration=self.size,
                pcm=self.pcm[index * block : (index + 1) * block],
                end_media_ns=end_media_ns,
                lost=0,
            )


@dataclass(frozen=True, slots=True)
class MissingMedia:
    """Positions between which media is missing for good."""

    start: int
    end: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a track has to give since the delivery before."""

    pieces: list[Piece | Run]
    frontier: int | None
    """Up to where the track is final: what is no piece is silence. None before anything is known."""
    step_ns: int
    """The longest time between two batches: so long the publisher said nothing."""
    duplicated: int
    reordered: int
    late: int
    """Frames whose place had been given up as lost."""
    missing: tuple[MissingMedia, ...]
