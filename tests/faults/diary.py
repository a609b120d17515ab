"""What a publisher wrote down for itself: every frame that it published, and every acknowledgement that it got.

A diary is two files that are only appended to, each record by one write, so that what a reader finds is whole but for
its end. Frames: session, sequence, time of capture, payload. Acknowledgements: session, sequence.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Diary", "PublishedFrame", "read_acknowledged", "read_frames"]

_FRAME = struct.Struct("<HqqI")
_ACKNOWLEDGEMENT = struct.Struct("<Hqq")
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class PublishedFrame:
    """A frame that was handed to a publisher, and the n-th session that it was."""

    session: int
    sequence: int
    capture_ns: int
    payload: bytes


class Diary:
    """Writes one."""

    def __init__(self, folder: Path, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._frames = os.open(folder / f"{name}.frames", flags, _MODE)
        self._acknowledged = os.open(folder / f"{name}.acknowledged", flags, _MODE)

    def published(self, frame: PublishedFrame) -> None:
        """Before it is published."""
        head = _FRAME.pack(frame.session, frame.sequence, frame.capture_ns, len(frame.payload))
        os.write(self._frames, head + frame.payload)

    def acknowledged(self, session: int, sequence: int, capture_ns: int) -> None:
        """All up to `sequence` is safe; it was captured then."""
        os.write(self._acknowledged, _ACKNOWLEDGEMENT.pack(session, sequence, capture_ns))

    def close(self) -> None:
        """Nothing is written any more."""
        os.close(self._frames)
        os.close(self._acknowledged)


def read_frames(folder: Path, name: str) -> Sequence[PublishedFrame]:
    """All frames, in the order in which they were published."""
    data = (folder / f"{name}.frames").read_bytes()
    frames, at = [], 0
    while at + _FRAME.size <= len(data):
        session, sequence, capture_ns, length = _FRAME.unpack_from(data, at)
        at += _FRAME.size + length
        frames.append(PublishedFrame(session, sequence, capture_ns, data[at - length : at]))
    return frames


def read_acknowledged(folder: Path, name: str) -> tuple[int, int, int]:
    """The newest acknowledgement: session, sequence, and when that frame was captured; zeros when there is none."""
    try:
        with (folder / f"{name}.acknowledged").open("rb") as file:
            whole = os.fstat(file.fileno()).st_size // _ACKNOWLEDGEMENT.size
            if whole:
                file.seek((whole - 1) * _ACKNOWLEDGEMENT.size)
                session, sequence, capture_ns = _ACKNOWLEDGEMENT.unpack(file.read(_ACKNOWLEDGEMENT.size))
                return session, sequence, capture_ns
    except FileNotFoundError:
        pass
    return 0, 0, 0
