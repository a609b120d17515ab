"""Ogg pages (RFC 3533, 6) and the two header packets of Opus (RFC 7845, 5)."""

import struct
import zlib
from collections.abc import Sequence
from typing import Final

__all__ = [
    "BEGIN_OF_STREAM",
    "END_OF_STREAM",
    "PAGE_SEGMENTS_MAX",
    "header_pages",
    "mark_last_page",
    "packet_segments",
    "page",
    "unmark_last_page",
]

BEGIN_OF_STREAM: Final = 0x02
END_OF_STREAM: Final = 0x04

PAGE_SEGMENTS_MAX: Final = 255
"""Segments of up to 255 bytes that one page holds."""

_HEADER = struct.Struct("<4sBBqIIIB")
_CAPTURE = b"OggS"
_FLAGS_AT, _CRC_AT = 5, 22
_SEGMENT_BYTES = 255

_OPUS_HEAD = struct.Struct("<8sBBHIhB")
_VENDOR = b"roomtape"

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def packet_segments(size: int) -> int:
    """How many segments of a page a packet takes."""
    return size // _SEGMENT_BYTES + 1


def page(packets: Sequence[bytes], granule: int, serial: int, number: int, flags: int = 0) -> bytes:
    """A page of whole packets, of at most `PAGE_SEGMENTS_MAX` segments; `granule` is the position after the
    last."""
    lacing = bytearray()
    for packet in packets:
        full, rest = divmod(len(packet), _SEGMENT_BYTES)
        lacing += b"\xff" * full
        lacing.append(rest)
    head = _HEADER.pack(_CAPTURE, 0, flags, granule, serial, number, 0, len(lacing))
    return _with_crc(b"".join((head, lacing, *packets)))


def header_pages(serial: int, channels: int) -> bytes:
    """The stream's first two pages. Nothing is skipped at its start."""
    head = _OPUS_HEAD.pack(b"OpusHead", 1, channels, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", len(_VENDOR)) + _VENDOR + struct.pack("<I", 0)
    return page([head], 0, serial, 0, BEGIN_OF_STREAM) + page([tags], 0, serial, 1)


def mark_last_page(tail: bytes) -> tuple[int, bytes, int]:
    """Finds the last page in the end of a file, which must end with a page.

    Returns where in `tail` the page begins, the page marked as the end of its stream, and its granule
    position. Raises ValueError if there is none.
    """
    at = _last_page(tail)
    marked = bytearray(tail[at:])
    marked[_FLAGS_AT] |= END_OF_STREAM
    return at, _with_crc(bytes(marked)), _HEADER.unpack_from(marked)[3]


def unmark_last_page(tail: bytes) -> tuple[int, bytes]:
    """Where in `tail` the last page begins, and that page as it was before `mark_last_page`. Raises ValueError."""
    at = _last_page(tail)
    page_bytes = bytearray(tail[at:])
    page_bytes[_FLAGS_AT] &= ~END_OF_STREAM
    return at, _with_crc(bytes(page_bytes))


def _last_page(tail: bytes) -> int:
    at = len(tail)
    while (at := tail.rfind(_CAPTURE, 0, at)) >= 0:
        page_bytes = tail[at:]
        is_whole = len(page_bytes) >= _HEADER.size and _length(page_bytes) == len(page_bytes)
        if is_whole and _with_crc(page_bytes) == page_bytes:
            return at
    raise ValueError("the file does not end with a page")


def _length(data: bytes) -> int:
    count = data[_HEADER.size - 1]
    return _HEADER.size + count + sum(data[_HEADER.size : _HEADER.size + count])


def _with_crc(data: bytes) -> bytes:
    blank = data[:_CRC_AT] + b"\0\0\0\0" + data[_CRC_AT + 4 :]
    # Ogg's CRC has zlib's polynomial with the bits the other way round, and neither start nor end value.
    mirrored = zlib.crc32(blank.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    crc = mirrored.to_bytes(4, "little").translate(_REVERSED)
    return data[:_CRC_AT] + crc[::-1] + data[_CRC_AT + 4 :]
