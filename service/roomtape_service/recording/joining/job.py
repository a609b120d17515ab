"""What the joining process is told, and what it answers.

Its input is a line with a `JoinJob` as JSON, then the bytes of all sources in their order. Its output is a line with a
`JoinResult` or a `JoinFailure`. Counts are samples for each channel at the job's rate.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from roomtape_service.recording.plain import from_plain, to_plain
from roomtape_service.recording.vocabulary import Container

__all__ = ["JoinFailure", "JoinFault", "JoinJob", "JoinResult", "JoinSource", "decode_answer", "encode_line"]


class JoinFault(StrEnum):
    """Why there is no file."""

    SOURCE_DIFFERS = "SOURCE_DIFFERS"
    """A source is not what was recorded: it never works."""
    DISK = "DISK"
    """The file can't be written: it may work later."""


@dataclass(frozen=True, slots=True)
class JoinSource:
    """A segment's file."""

    size_bytes: int
    sha256: str
    at: int
    """Where it begins in the joined file."""
    samples: int
    """How many it plays."""
    encoder_delay: int = 0
    """How many a decoder puts out before them that knows of no tag."""


@dataclass(frozen=True, slots=True)
class JoinJob:
    """A file to be made at `path`, which must not be there; `bitrate` in bit/s is for containers that encode."""

    container: Container
    path: str
    rate: int
    channels: int
    bitrate: int
    samples: int
    """Where its last source ends."""
    sources: tuple[JoinSource, ...]

    @classmethod
    def read(cls, line: bytes) -> "JoinJob":
        """Raises ValueError."""
        return from_plain(cls, json.loads(line))


@dataclass(frozen=True, slots=True)
class JoinResult:
    """A file that is whole and on the disk; `samples` is what it plays."""

    size_bytes: int
    sha256: str
    samples: int
    encoder_delay: int


@dataclass(frozen=True, slots=True)
class JoinFailure:
    """There is no file; `source` is the index of the source at fault, or -1."""

    fault: JoinFault
    message: str
    source: int = -1


def encode_line(value: JoinJob | JoinResult | JoinFailure) -> bytes:
    """As one line."""
    return json.dumps(to_plain(value), separators=(",", ":")).encode() + b"\n"


def decode_answer(line: bytes) -> JoinResult | JoinFailure:
    """Raises ValueError for what is neither, such as the nothing of a process that died."""
    data = json.loads(line)
    is_failure = isinstance(data, dict) and "fault" in data
    return from_plain(JoinFailure, data) if is_failure else from_plain(JoinResult, data)
