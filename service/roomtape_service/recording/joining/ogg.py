"""Ogg: the packets as they are under new granule positions, packets of silence between."""

import struct
import zlib
from collections.abc import Iterable, Iterator

from roomtape_service.recording.containers.ogg import OggWriter, finish_ogg
from roomtape_service.recording.joining.job import JoinJob
from roomtape_service.recording.joining.source import Source
from roomtape_service.recording.opus import OPUS_RATE, CorruptPacketError, packet_samples

__all__ = ["join_ogg"]

# RFC 3533, 6: a page's header up to the count of its segments.
_PAGE = struct.Struct("<4sBBqIIIB")
_FULL_SEGMENT = 255
_HEADERS = (b"OpusHead", b"OpusTags")

_PAGE_SAMPLES = OPUS_RATE
"""A page holds a second at most, so that players seek as finely as in what was recorded."""


def join_ogg(job: JoinJob, sources: Iterable[Source]) -> int:
    """Writes the file; returns what it plays. Raises OSError, SourceDiffers."""
    writer = OggWriter(job.path, job.channels, zlib.crc32(job.path.encode()))
    paged = 0
    for source in sources:
        # A file plays up to a packet more or less than its time in the room.
        if source.what.at > writer.ready:
            writer.add_silence(source.what.at - writer.ready)
        for packet, samples in _media(source):
            writer.add_packet(packet, samples, samples)
            if writer.ready - paged >= _PAGE_SAMPLES:
                paged = writer.ready
                writer.cut(paged)
    size = writer.cut(writer.ready)
    writer.file.close()
    return finish_ogg(job.path, size)


def _media(source: Source) -> Iterator[tuple[bytes, int]]:
    """A source's packets but for its headers, with their durations."""
    packets = _packets(source)
    for header in _HEADERS:
        if not next(packets, b"").startswith(header):
            raise source.differs("it is no Ogg file with Opus")
    for packet in packets:
        try:
            yield packet, packet_samples(packet)
        except CorruptPacketError as error:
            raise source.differs(f"it has {error}") from error


def _packets(source: Source) -> Iterator[bytes]:
    begun = b""
    while source.left_bytes:
        header = source.read(_PAGE.size)
        if len(header) < _PAGE.size or not header.startswith(b"OggS"):
            raise source.differs("it is no Ogg file")
        for size in source.read(header[-1]):
            begun += source.read(size)
            if size < _FULL_SEGMENT:
                yield begun
                begun = b""
