"""Finishing a segment's files: cut to a checkpoint, headers and tags written, sizes and hashes taken.

It is the same at a segment's regular end and after a crash, and may be done again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from roomtape_service.recording.containers.aac_files import ENCODER_DELAY, finish_aac, finish_m4a, m4a_format
from roomtape_service.recording.containers.mp3 import MP3_DELAY, finish_mp3, frame_format
from roomtape_service.recording.containers.ogg import finish_ogg
from roomtape_service.recording.containers.table import passes_packets
from roomtape_service.recording.containers.wav import finish_wav
from roomtape_service.recording.positions import ns_of
from roomtape_service.recording.protocol import (
    CompletedFile,
    Container,
    Resume,
    SegmentCompleted,
    SpoolTrouble,
)
from roomtape_service.spool.journal import Checkpoint, JournalHeader, MediaFile

__all__ = ["finish_segment"]


def finish_segment(
    folder: Path,
    header: JournalHeader,
    last: Checkpoint,
    resume: Mapping[str, Resume],
    *,
    interrupted: bool,
    ends: Sequence[Checkpoint | None] = (),
    trouble: SpoolTrouble | None = None,
) -> SegmentCompleted:
    """Finishes the files of a segment that ends at its checkpoint `last`; `resume` is of all its tracks.

    `ends`, in the order of the header's files, says where damaged files end before it; None of one that is no more.
    `trouble` is what interrupted it, if not its worker's death.
    Raises OSError, and ValueError if a file is not what the journal says.
    """
    files = tuple(
        _finish_file(folder, header, index, end, is_short=end.samples < last.samples)
        for index, end in enumerate(ends or [last] * len(header.files))
        if end is not None
    )
    return SegmentCompleted(
        recording_id=header.recording_id,
        segment=header.segment,
        start_ns=ns_of(header.start, header.sample_rate, header.epoch_ns),
        end_ns=ns_of(header.start + last.samples, header.sample_rate, header.epoch_ns),
        sample_rate=header.sample_rate,
        channels=header.channels,
        sample_count=last.samples,
        interrupted=interrupted,
        files=files,
        statistics=last.statistics,
        resume=resume,
        trouble=trouble,
    )


def _finish_file(
    folder: Path, header: JournalHeader, index: int, end: Checkpoint, *, is_short: bool
) -> CompletedFile:
    file = header.files[index]
    path = str(folder / file.name)
    played = _finish_container(path, header, file, end.sizes[index], header.samples_of(file, end.samples))
    end_ns = ns_of(header.start + end.samples, header.sample_rate, header.epoch_ns) if is_short else None
    with open(path, "rb") as media:
        sha256 = hashlib.file_digest(media, "sha256").hexdigest()
        size = media.tell()
    delay = _delay(header, file.container)
    return CompletedFile(
        file.container, path, size, sha256, delay, played, end_ns, file.sample_rate, file.channels
    )


def _delay(header: JournalHeader, container: Container) -> int:
    """Samples that a decoder puts out before the first that was recorded."""
    match container:
        case Container.MP3:
            return MP3_DELAY
        case Container.AAC | Container.M4A:
            return 0 if passes_packets(header.codec, container) else ENCODER_DELAY
        case Container.OGG | Container.WAV:
            return 0


def _finish_container(path: str, header: JournalHeader, file: MediaFile, size: int, samples: int) -> int:
    rate, channels, container = header.rate_of(file), header.channels_of(file), file.container
    match container:
        case Container.WAV:
            return finish_wav(path, size, samples, rate, channels)
        case Container.MP3:
            form = frame_format(rate, channels, header.bitrate)
            return finish_mp3(path, size, samples, form)
        case Container.OGG:
            return finish_ogg(path, size)
        case Container.AAC:
            return finish_aac(path, size, samples, passes=passes_packets(header.codec, container))
        case Container.M4A:
            passes = passes_packets(header.codec, container)
            shape = m4a_format(rate, channels, passes=passes)
            return finish_m4a(path, size, samples, shape)
