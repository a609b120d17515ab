"""One segment while it is written: its media files and its journal."""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roomtape_service import failpoints
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.converting import ConvertingWriter
from roomtape_service.recording.containers.mp3 import Mp3Writer
from roomtape_service.recording.containers.ogg import OggWriter
from roomtape_service.recording.containers.output import ContainerWriter
from roomtape_service.recording.containers.table import passes_packets
from roomtape_service.recording.containers.wav import WavWriter
from roomtape_service.recording.decoding import SAMPLE_BYTES
from roomtape_service.recording.delivery import Run
from roomtape_service.recording.protocol import (
    Container,
    FrameStatistics,
    Resume,
    SpoolTrouble,
    StartedFile,
)
from roomtape_service.recording.remembering import remember
from roomtape_service.spool.journal import Checkpoint, JournalHeader, JournalWriter, MediaFile

__all__ = ["SegmentWriter", "WrittenSegment"]


@dataclass(frozen=True, slots=True)
class WrittenSegment:
    """A segment that will not grow: what is needed to finish its files."""

    folder: Path
    header: JournalHeader
    last: Checkpoint
    resume: Mapping[str, Resume]
    journal: JournalWriter
    interrupted: bool
    trouble: SpoolTrouble | None = None


class SegmentWriter:
    """Writes a segment's files side by side. What is added is in memory until `checkpoint`.

    All methods raise OSError when the spool can't be written; the segment is then as its last checkpoint says.
    """

    def __init__(self, folder: Path, header: JournalHeader, *, waits_for_disk: bool) -> None:
        """`waits_for_disk`: a checkpoint returns when the disk has it, and not only the kernel."""
        self.header = header
        self.added = 0
        """Samples since the segment's start."""
        self.last: Checkpoint | None = None
        """The newest checkpoint."""
        self.pending_bytes = 0
        """PCM that is kept in memory."""
        self._folder = folder
        self._block = SAMPLE_BYTES * header.channels
        self._waits_for_disk = waits_for_disk
        self._resume = dict(header.resume)
        self._pcm: list[bytes] = []
        self._writers: list[ContainerWriter] = []
        self._journal: JournalWriter | None = None
        try:
            # The journal first: media without one would look foreign to a recovery.
            self._journal = JournalWriter(str(folder / journal_name(header)))
            self._journal.append(header)
            for file in header.files:
                self._writers.append(self._writer(file, str(folder / file.name)))
        except OSError:
            self.abandon()
            raise
        self._passers = [each for each in self._writers if passes_packets(header.codec, each.container)]
        self._takers = [each for each in self._writers if each not in self._passers]

    @property
    def files(self) -> tuple[StartedFile, ...]:
        """Where the files are."""
        paths = (writer.file.path for writer in self._writers)
        return tuple(
            StartedFile(file.container, path, file.sample_rate, file.channels)
            for file, path in zip(self.header.files, paths, strict=True)
        )

    @property
    def size(self) -> int:
        """Bytes of the largest file on disk."""
        return max(writer.file.size for writer in self._writers)

    def add_pcm(self, pcm: bytes, samples: int) -> None:
        """Samples for the writers that encode or copy."""
        self._pcm.append(pcm)
        self.pending_bytes += len(pcm)
        self.added += samples

    def add_frame(self, pcm: bytes, samples: int, packet: bytes | None, duration: int) -> None:
        """A frame of a track: its samples, and its packet, which plays for `duration`, for writers that pass packets.

        A packet that is None is replaced by silence.
        """
        if self._takers:
            self._pcm.append(pcm)
            self.pending_bytes += len(pcm)
        self.added += samples
        for passer in self._passers:
            if packet is None:
                passer.add_silence(samples)
            else:
                passer.add_packet(packet, duration, samples)

    def add_run(self, run: Run) -> None:
        """As `add_frame` of each."""
        if self._takers:
            self._pcm.append(run.pcm)
            self.pending_bytes += len(run.pcm)
        self.added += run.samples
        for passer in self._passers:
            for packet in run.packets:
                passer.add_packet(packet, run.size, run.size)

    def add_silence(self, samples: int) -> None:
        """Silence for all."""
        self._hand_over()
        self.added += samples
        for writer in self._writers:
            writer.add_silence(samples)

    def ready(self) -> int:
        """Up to where a checkpoint can be now."""
        self._hand_over()
        return min(writer.ready for writer in self._writers)

    def end(self) -> None:
        """Nothing will be added: a checkpoint can be at `added`."""
        self._hand_over()
        for writer in self._writers:
            writer.end()

    def checkpoint(
        self,
        samples: int,
        resume: Mapping[str, Resume],
        statistics: FrameStatistics,
        *,
        is_last: bool = False,
    ) -> None:
        """Makes everything up to `samples` survive the process; `resume` is of the tracks that moved on."""
        assert self._journal is not None
        sizes = tuple(writer.cut(samples) for writer in self._writers)
        sums = tuple(writer.file.checksum(size) for writer, size in zip(self._writers, sizes, strict=True))
        if self._waits_for_disk:
            for writer in self._writers:
                writer.file.sync()
        checkpoint = Checkpoint(samples, sizes, resume, statistics, is_last, sums)
        self._journal.append(checkpoint)
        if self._waits_for_disk:
            self._journal.sync()
        remember(self._resume, resume)
        self.last = checkpoint

    def release(self, *, interrupted: bool, trouble: SpoolTrouble | None = None) -> WrittenSegment:
        """Gives up the files, to be finished as of the last checkpoint; `trouble`: what interrupted them."""
        assert self.last is not None
        assert self._journal is not None
        for writer in self._writers:
            writer.file.close()
        return WrittenSegment(
            self._folder, self.header, self.last, self._resume, self._journal, interrupted, trouble
        )

    def abandon(self) -> None:
        """Removes the files of a segment without a checkpoint, as far as they can be removed."""
        paths = [writer.file.path for writer in self._writers]
        for writer in self._writers:
            writer.file.close()
        if self._journal is not None:
            self._journal.close()
            paths.append(self._journal.path)
        for path in paths:
            try:
                failpoints.hit("segment.abandon")
                os.unlink(path)
            except OSError:
                return

    def _hand_over(self) -> None:
        if not self._pcm:
            return
        pcm = self._pcm[0] if len(self._pcm) == 1 else b"".join(self._pcm)
        self._pcm.clear()
        self.pending_bytes = 0
        for taker in self._takers:
            taker.add_pcm(pcm)

    def _writer(self, file: MediaFile, path: str) -> ContainerWriter:
        header = self.header
        rate, channels = header.rate_of(file), header.channels_of(file)
        writer = self._plain_writer(file.container, path, rate, channels)
        if (rate, channels) == (header.sample_rate, header.channels):
            return writer
        return ConvertingWriter(writer, (header.sample_rate, header.channels), (rate, channels))

    def _plain_writer(self, container: Container, path: str, rate: int, channels: int) -> ContainerWriter:
        header = self.header
        match container:
            case Container.WAV:
                return WavWriter(path, rate, channels)
            case Container.MP3:
                return Mp3Writer(path, rate, channels, header.bitrate)
            case Container.OGG:
                return OggWriter(path, header.channels, zlib.crc32(path.encode()))
            case Container.AAC | Container.M4A:
                bitrate = None if passes_packets(header.codec, container) else header.bitrate
                return AacWriter(container, path, rate, channels, bitrate)


def journal_name(header: JournalHeader) -> str:
    """The name of a segment's journal."""
    return f"{header.recording_id}-{header.segment:06d}.journal"
