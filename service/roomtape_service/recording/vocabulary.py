"""Words that nodes, workers and the spool have in common."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CompletedFile",
    "Container",
    "FrameStatistics",
    "GapReason",
    "RecordingKind",
    "Resume",
    "RoomClock",
    "SpoolTrouble",
    "StartedFile",
    "TrackCodec",
]


class RoomClock(StrEnum):
    """What a room's time is made of."""

    ARRIVAL = "ARRIVAL"
    MEDIA = "MEDIA"


class TrackCodec(StrEnum):
    """How a track is encoded."""

    OPUS = "OPUS"
    PCM_S16LE = "PCM_S16LE"
    AAC = "AAC"
    PCMU = "PCMU"
    PCMA = "PCMA"


class Container(StrEnum):
    """Kind of a file."""

    MP3 = "MP3"
    OGG = "OGG"
    WAV = "WAV"
    AAC = "AAC"
    M4A = "M4A"


class RecordingKind(StrEnum):
    """What a recording is of."""

    SINGLE = "SINGLE"
    MIXED = "MIXED"


class GapReason(StrEnum):
    """Why media is missing."""

    PUBLISHER_LOST = "PUBLISHER_LOST"
    INTERRUPTED = "INTERRUPTED"
    SPOOL_FULL = "SPOOL_FULL"


class SpoolTrouble(StrEnum):
    """Why recordings end their segments although nobody said so; names an ErrorReason."""

    UNWRITABLE = "SPOOL_UNWRITABLE"
    FULL = "SPOOL_FULL"


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a recording stands with a track: it has every frame up to `sequence`; `offset_ns` added to a
    frame's media time gives its room time."""

    sequence: int
    offset_ns: int


@dataclass(frozen=True, slots=True)
class StartedFile:
    """A file that grows."""

    container: Container
    path: str
    sample_rate: int = 0
    """0 in both: as the segment."""
    channels: int = 0


@dataclass(frozen=True, slots=True)
class CompletedFile:
    """A complete file of a segment; `sample_count` is what a decoder puts out, `encoder_delay` what one that
    can't read the file's tag puts out before it."""

    container: Container
    path: str
    size: int
    sha256: str
    encoder_delay: int
    sample_count: int
    end_ns: int | None = None
    """Where a file ends that was damaged, and is shorter than its segment."""
    sample_rate: int = 0
    """0 in both: as the segment."""
    channels: int = 0


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """What became of a segment's frames; see roomtape.v1.FrameStatistics."""

    recorded: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    rejected: int = 0
