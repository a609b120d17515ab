"""AAC in files: `.aac`, which is one unit after the other with a header each (ADTS), and `.m4a` (MP4).

M4A grows in fragments, so that what is on the disk can be played. To finish it a table of everything is written behind
the last fragment and the head becomes that of one large box. ADTS has no place for times or for the encoder's delay.
"""

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, Protocol

from roomtape_service.recording.aac import ADTS_HEADER_BYTES, UNIT_SAMPLES, adts_frame_bytes, adts_header
from roomtape_service.recording.containers.m4a_boxes import (
    FRAGMENT_HEAD_BYTES,
    Fragment,
    M4aFormat,
    Placed,
    finished_head,
    finished_index,
    fragment,
    fragment_bytes,
    growing_head,
    read_fragment,
)

__all__ = [
    "ENCODER_DELAY",
    "AdtsFraming",
    "Framing",
    "M4aFraming",
    "finish_aac",
    "finish_m4a",
    "growing_m4a_head",
    "m4a_format",
]

ENCODER_DELAY: Final = UNIT_SAMPLES
"""Samples of silence that the encoder puts before its input."""

_CHUNK_BYTES = 1 << 20


class Framing(Protocol):
    """Makes units bytes of a file."""

    def framed(self, units: Sequence[Placed]) -> bytes:
        """The next bytes."""
        ...


class AdtsFraming:
    """See Framing."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels

    def framed(self, units: Sequence[Placed]) -> bytes:
        """See Framing."""
        return b"".join(
            part
            for unit in units
            for part in (adts_header(self._rate, self._channels, len(unit.data)), unit.data)
        )


class M4aFraming:
    """See Framing."""

    def __init__(self, form: M4aFormat) -> None:
        self._head = growing_head(form)
        self._fragments = 0

    def framed(self, units: Sequence[Placed]) -> bytes:
        """See Framing."""
        head, self._head = self._head, b""
        if not units:
            return head
        self._fragments += 1
        return head + fragment(units, self._fragments)


def m4a_format(rate: int, channels: int, *, passes: bool) -> M4aFormat:
    """The format of a file whose units pass, or are encoded."""
    return M4aFormat(rate, channels, 0 if passes else ENCODER_DELAY)


def growing_m4a_head(form: M4aFormat) -> bytes:
    """What a file that is not finished begins with."""
    return growing_head(form)


def finish_m4a(path: str, size: int, samples: int, form: M4aFormat) -> int:
    """Makes an ordinary file of the fragments in its first `size` bytes, which `cut` gave for `samples`. Idempotent.

    The file grows by its table. Returns the samples that it plays. Raises OSError, and ValueError if the file is none
    of `AacWriter`.
    """
    with open(path, "r+b", buffering=_CHUNK_BYTES) as file:
        file.truncate(size)
        file.seek(len(growing_head(form)))
        index = finished_index(form, samples, list(_fragments(file, size)))
        file.seek(size)
        file.write(index)
        file.flush()
        os.pwrite(file.fileno(), finished_head(size), 0)
    return samples


def _fragments(file: BinaryIO, size: int) -> Iterator[tuple[int, Fragment]]:
    while (at := file.tell()) < size:
        head = file.read(FRAGMENT_HEAD_BYTES)
        length = fragment_bytes(head)
        description = read_fragment(head + file.read(length - len(head)))
        yield at + length, description
        file.seek(at + length + description.data_bytes)


def finish_aac(path: str, size: int, samples: int, *, passes: bool) -> int:
    """Cuts an ADTS file to the `size` that `cut` gave for `samples`. Idempotent. Returns the samples that it plays: of
    units that passed, all.

    Raises OSError, and ValueError if the file is none of `AacWriter`.
    """
    with open(path, "r+b", buffering=_CHUNK_BYTES) as file:
        file.truncate(size)
        return sum(UNIT_SAMPLES for _ in _frames(file, size)) if passes else samples


def _frames(file: BinaryIO, size: int) -> Iterator[None]:
    at = 0
    while at < size:
        header = file.read(ADTS_HEADER_BYTES)
        if len(header) < ADTS_HEADER_BYTES:
            raise ValueError("a file that ends inside of an ADTS header")
        length = adts_frame_bytes(header)
        file.seek(length - ADTS_HEADER_BYTES, os.SEEK_CUR)
        at += length
        yield
