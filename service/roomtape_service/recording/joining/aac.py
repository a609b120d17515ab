"""AAC and M4A. Access units that were recorded as they came are joined as they are, with units of silence between.

Units of encoders that knew nothing of each other can't stand in one stream: where a source was encoded, all are decoded
to the very samples that were recorded, and encoded again at the same bit rate.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

import av

from roomtape_service.recording.aac import ADTS_HEADER_BYTES, UNIT_SAMPLES, adts_frame_bytes
from roomtape_service.recording.containers.aac_files import (
    ENCODER_DELAY,
    finish_aac,
    finish_m4a,
    growing_m4a_head,
    m4a_format,
)
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.m4a_boxes import (
    FRAGMENT_HEAD_BYTES,
    Placed,
    finished_size,
    fragment_bytes,
    read_fragment,
)
from roomtape_service.recording.decoding import SAMPLE_BYTES, aac_decoder, interleaved
from roomtape_service.recording.joining.job import JoinJob
from roomtape_service.recording.joining.source import Source
from roomtape_service.recording.vocabulary import Container

__all__ = ["join_aac"]

_PIECE_SECONDS = 1


def join_aac(job: JoinJob, sources: Iterable[Source]) -> tuple[int, int]:
    """Writes the file; returns what it plays, and the delay of its encoder. Raises OSError, SourceDiffers."""
    passes = not any(source.encoder_delay for source in job.sources)
    writer = AacWriter(job.container, job.path, job.rate, job.channels, None if passes else job.bitrate)
    cut = written = 0
    for source in sources:
        while written < source.what.at:
            piece = min(_PIECE_SECONDS * job.rate, source.what.at - written)
            writer.add_silence(piece)
            written += piece
        for data, samples in _packets(source, job) if passes else _pcm(source, job):
            if passes:
                writer.add_packet(data, UNIT_SAMPLES, samples)
            else:
                writer.add_pcm(data)
            written += samples
            if writer.ready - cut >= _PIECE_SECONDS * job.rate:
                cut = writer.ready
                writer.cut(cut)
    writer.end()
    size = writer.cut(written)
    writer.file.close()
    if job.container is Container.M4A:
        form = m4a_format(job.rate, job.channels, passes=passes)
        return finish_m4a(job.path, size, written, form), form.delay
    return finish_aac(job.path, size, written, passes=passes), 0 if passes else ENCODER_DELAY


def _packets(source: Source, job: JoinJob) -> Iterator[tuple[bytes, int]]:
    """A source's units, and for how long each plays there."""
    end = Placed(b"", source.what.samples)
    for unit, after in pairwise(chain(_units(source, job), (end,))):
        if after.at <= unit.at:
            raise source.differs("its units are not in the order of time")
        yield unit.data, after.at - unit.at


def _pcm(source: Source, job: JoinJob) -> Iterator[tuple[bytes, int]]:
    """What was recorded, and nothing of what the encoder put before it."""
    block = SAMPLE_BYTES * job.channels
    decoder = aac_decoder(job.rate, job.channels)
    at, end = 0, source.what.samples
    for unit in _units(source, job):
        try:
            frames = decoder.decode(av.Packet(unit.data))
        except av.FFmpegError as error:
            raise source.differs(f"it can't be decoded: {error}") from error
        if len(frames) != 1 or frames[0].samples != UNIT_SAMPLES:
            raise source.differs("a unit of it is none of AAC-LC")
        begin = unit.at - source.what.encoder_delay
        if begin > at:
            yield bytes((begin - at) * block), begin - at
            at = begin
        wanted = range(at - begin, min(UNIT_SAMPLES, end - begin))
        if wanted:
            pcm = interleaved(frames[0], UNIT_SAMPLES * block)
            yield pcm[wanted.start * block : wanted.stop * block], len(wanted)
            at += len(wanted)
    if at < end and source.what.encoder_delay:
        raise source.differs(f"it is {end - at} samples shorter than what was recorded")
    if at < end:
        yield bytes((end - at) * block), end - at


def _units(source: Source, job: JoinJob) -> Iterator[Placed]:
    try:
        if job.container is Container.M4A:
            yield from _m4a_units(
                source, len(growing_m4a_head(m4a_format(job.rate, job.channels, passes=True)))
            )
        else:
            yield from _adts_units(source)
    except ValueError as error:
        raise source.differs(f"it is none that was recorded: {error}") from error


def _m4a_units(source: Source, head_bytes: int) -> Iterator[Placed]:
    size = source.left_bytes
    end = size - finished_size(source.read(head_bytes))
    while source.left_bytes > end:
        head = source.read(FRAGMENT_HEAD_BYTES)
        length = fragment_bytes(head)
        described = read_fragment(head + source.read(length - len(head)))
        for at, unit_bytes in zip(described.starts, described.lengths, strict=True):
            yield Placed(source.read(unit_bytes), at)


def _adts_units(source: Source) -> Iterator[Placed]:
    at = 0
    while source.left_bytes:
        header = source.read(ADTS_HEADER_BYTES)
        if len(header) < ADTS_HEADER_BYTES:
            raise ValueError("it ends inside of an ADTS header")
        yield Placed(source.read(adts_frame_bytes(header) - ADTS_HEADER_BYTES), at)
        at += UNIT_SAMPLES
