"""The segments of one recording, one after the other.

A recording puts samples in and marks in between: which frame of which track is complete there. A checkpoint makes the
samples up to some position survive, with all marks up to it; what is safe is what a checkpoint covers.
"""

import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roomtape_service.recording.closing import Closer, ClosingQueue
from roomtape_service.recording.containers.table import EXTENSIONS, pair, passes_packets
from roomtape_service.recording.containers.wav import WAV_BYTES_MAX
from roomtape_service.recording.decoding import SAMPLE_BYTES
from roomtape_service.recording.delivery import Run
from roomtape_service.recording.marks import Format, Mark
from roomtape_service.recording.positions import ns_of, samples_of
from roomtape_service.recording.protocol import (
    Container,
    FrameStatistics,
    RecordingStart,
    Resume,
    RoomOpen,
    SegmentGrown,
    SegmentStarted,
    SpoolTrouble,
    TrackCodec,
    WorkerOp,
)
from roomtape_service.recording.remembering import remember
from roomtape_service.recording.segment import SegmentWriter
from roomtape_service.spool.journal import JournalHeader, MediaFile
from roomtape_service.storage.part import PART_BYTES, settled_parts

__all__ = ["SegmentSeries", "SeriesServices"]

_WAV_MARGIN_BYTES: Final = 64 * 1024 * 1024
"""Size is looked at when a checkpoint is written; nothing writes as much in between."""
_AHEAD_SAMPLES: Final = 2304
"""Two frames of MP3; a few of these empty an encoder."""


@dataclass(frozen=True, slots=True)
class SeriesServices:
    """What a recording needs of its worker."""

    folder: Path
    """Where segments are written."""
    send: Callable[[WorkerOp], None]
    """Tells the node."""
    closer: Closer
    waits_for_disk: bool
    """Whether acknowledged means on the disk, and not only the kernel's."""
    part_bytes: int = PART_BYTES
    """Of the uploads of files that grow."""


class SegmentSeries:
    """Writes the segments of one recording. Positions are samples of the format's rate since the room's epoch.

    Methods that write raise OSError; then only `fail` is left to be called.
    """

    def __init__(
        self, order: RecordingStart, room: RoomOpen, services: SeriesServices, *, cuts_anywhere: bool
    ) -> None:
        """`cuts_anywhere`: checkpoints need not lie where a frame ends."""
        self.position = 0
        """Where the next sample of the open segment goes, or went at the end of the last one."""
        self.safe: dict[str, int] = {key: resume.sequence for key, resume in order.resume.items()}
        """By key, for the tracks that are remembered: the newest sequence that nothing needs to be sent again of."""
        self.closing = ClosingQueue(services.closer, services.send)
        """Segments that are being finished."""
        self.format: Format | None = None
        """Of the open segment; None when there is none."""
        self.ended_ns = order.ended_ns if order.position_ns is None else order.position_ns
        """Room time of the end of the segment before; None if there is none. No segment may begin before."""
        self.trouble: SpoolTrouble | None = None
        """Why the open segment ends before its time, if it does."""
        self._order = order
        self._cuts_anywhere = cuts_anywhere
        self._room = room
        self._services = services
        self._containers = order.containers
        self._next_segment = order.next_segment
        self._resume = dict(order.resume)
        self._segment: SegmentWriter | None = None
        self._start = 0
        self._limit = 0
        self._limit_bytes = order.segment_bytes
        if Container.WAV in order.containers:
            self._limit_bytes = min(self._limit_bytes, WAV_BYTES_MAX - _WAV_MARGIN_BYTES)
        self._ahead = 0
        self._is_announced = False
        self._settled = 0
        self._marks: deque[Mark] = deque()
        self._statistics = FrameStatistics()
        self._late = 0

    @property
    def is_open(self) -> bool:
        """Whether a segment is being written."""
        return self._segment is not None

    @property
    def unsafe(self) -> bool:
        """Whether there are marks or samples that no checkpoint covers."""
        segment = self._segment
        if segment is None:
            return False
        return bool(self._marks) or segment.last is None or segment.last.samples < self.position - self._start

    @property
    def left(self) -> int:
        """Samples that fit into the open segment; of the next one if it is full."""
        left = self._limit - (self.position - self._start)
        return left if left > 0 else self._limit

    @property
    def pending_bytes(self) -> int:
        """Roughly what is kept in memory."""
        return self._segment.pending_bytes if self._segment is not None else 0

    def holds(self, key: str) -> bool:
        """Whether a frame of the track is in no checkpoint yet."""
        return any(mark.key == key for mark in self._marks)

    def containers_of(self, codec: TrackCodec) -> list[Container]:
        """Those of the recording's containers that can hold media of a codec."""
        return [each for each in self._containers if pair(codec, each) is not None]

    def begin(self, position: int, form: Format) -> None:
        """Opens a segment that begins at `position`."""
        assert self._segment is None
        order, room = self._order, self._room
        name = f"{order.recording_id}-{self._next_segment:06d}"
        header = JournalHeader(
            recording_id=order.recording_id,
            task_id=order.task_id,
            kind=order.kind,
            segment=self._next_segment,
            epoch_ns=room.epoch_ns,
            start=position,
            sample_rate=form.rate,
            channels=form.channels,
            bitrate=order.bitrate,
            files=tuple(
                self._media_file(each, f"{name}.{EXTENSIONS[each]}", form)
                for each in self.containers_of(form.codec)
            ),
            resume=dict(self._resume),
            codec=form.codec,
        )
        services = self._services
        self._segment = SegmentWriter(services.folder, header, waits_for_disk=services.waits_for_disk)
        self.format = form
        self.position = self._start = position
        self._ahead = 0
        self._limit = samples_of(order.segment_ns, form.rate)
        self._is_announced = False
        self._settled = 0

    def _media_file(self, container: Container, name: str, form: Format) -> MediaFile:
        order = self._order
        if passes_packets(form.codec, container):
            return MediaFile(container, name)
        rate, channels = order.sample_rate or form.rate, order.channels or form.channels
        if (rate, channels) == (form.rate, form.channels):
            return MediaFile(container, name)
        return MediaFile(container, name, rate, channels)

    def add_frame(self, pcm: bytes, samples: int, packet: bytes | None, duration: int, mark: Mark) -> None:
        """A frame of a track at `position`; where it does not fit into the segment, the next one begins."""
        segment = self._open()
        if segment.added + samples > self._limit and segment.added:
            segment = self._cut()
        segment.add_frame(pcm, samples, packet, duration)
        self.position += samples
        self._marks.append(mark)

    def fits(self, samples: int) -> bool:
        """Whether so much fits into the open segment."""
        return self._open().added + samples <= self._limit

    def add_run(self, run: Run, mark: Mark) -> None:
        """Frames of a track at `position`, which fit into the segment."""
        self._open().add_run(run)
        self.position += run.samples
        self._marks.append(mark)

    def add_pcm(self, pcm: bytes, samples: int) -> None:
        """Samples at `position`; segments end inside of them where they have to."""
        segment = self._cut() if self._ahead else self._open()
        block = len(pcm) // samples if samples else SAMPLE_BYTES
        while segment.added + samples > self._limit:
            part = max(0, self._limit - segment.added)
            if part:
                segment.add_pcm(pcm[: part * block], part)
            self.position += part
            pcm, samples = pcm[part * block :], samples - part
            segment = self._cut()
        if samples:
            segment.add_pcm(pcm, samples)
            self.position += samples

    def add_silence(self, until: int) -> None:
        """Silence up to a position; segments end inside of it where they have to."""
        segment = self._open()
        borrowed = min(self._ahead, until - self.position)
        if borrowed > 0:
            self._ahead -= borrowed
            self._marks.append(Mark(self.position + borrowed, self.position))
            self.position += borrowed
        while (samples := until - self.position) > 0:
            part = min(samples, max(0, self._limit - segment.added))
            if part:
                segment.add_silence(part)
                self._marks.append(Mark(self.position + part, self.position))
                self.position += part
            if part < samples:
                segment = self._cut()

    def mark(self, mark: Mark) -> None:
        """Notes a mark at or before `position`, but not before the mark before it."""
        if self._segment is not None:
            self._marks.append(mark)
        elif mark.key is not None:
            # Outside of a segment there is nothing to wait for.
            remember(self.safe, {mark.key: mark.sequence})

    def count(self, *, duplicated: int = 0, reordered: int = 0, rejected: int = 0, late: int = 0) -> None:
        """Counts what became of frames that have no mark; `late` came after their place was given up as lost."""
        self._late += late
        if not (duplicated or reordered or rejected):
            return
        known = self._statistics
        self._statistics = dataclasses.replace(
            known,
            duplicated=known.duplicated + duplicated,
            reordered=known.reordered + reordered,
            rejected=known.rejected + rejected,
        )

    def settle(self) -> None:
        """Lets a checkpoint reach `position`, although nothing follows that would push it out of the encoders.

        They get silence ahead of time. If silence does follow, it is taken from that; if anything else does, the
        next segment begins there.
        """
        segment = self._segment
        if segment is None:
            return
        while segment.added and segment.ready() < self.position - self._start:
            segment.add_silence(_AHEAD_SAMPLES)
            self._ahead += _AHEAD_SAMPLES

    def checkpoint(self) -> None:
        """Makes survive what can."""
        segment = self._segment
        if segment is None or not self.unsafe:
            return
        ready = segment.ready() + self._start
        end = self._checkpoint_end(ready)
        moved = segment.last is None or end - self._start > segment.last.samples
        if not moved and not (self._marks and self._marks[0].first_end <= end):
            return
        if end > self._start:
            self._write_checkpoint(segment, end)
        if segment.size >= self._limit_bytes:
            self._cut()

    def end(self) -> None:
        """Ends the open segment, if there is one, by the rules."""
        segment = self._segment
        if segment is None:
            return
        if segment.added:
            segment.end()
            trouble = self.trouble
            self._write_checkpoint(segment, self.position, is_last=trouble is None)
            self.closing.add(segment.release(interrupted=trouble is not None, trouble=trouble))
            self._note_end(segment)
        else:
            remember(self.safe, {mark.key: mark.sequence for mark in self._marks if mark.key is not None})
            segment.abandon()
        self._forget_segment()

    def fail(self) -> None:
        """The spool can't be written: the open segment ends at its last checkpoint."""
        segment = self._segment
        if segment is None:
            return
        if segment.last is not None:
            self._announce(segment)
            is_whole = segment.last.is_last
            trouble = None if is_whole else self.trouble
            self.closing.add(segment.release(interrupted=not is_whole, trouble=trouble))
            self._note_end(segment)
        else:
            segment.abandon()
        self._forget_segment()

    def _open(self) -> SegmentWriter:
        assert self._segment is not None
        return self._segment

    def _cut(self) -> SegmentWriter:
        form = self.format
        assert form is not None
        self.end()
        self.begin(self.position, form)
        return self._open()

    def _checkpoint_end(self, ready: int) -> int:
        """The newest place up to `ready` where a checkpoint may lie."""
        if ready >= self.position or self._cuts_anywhere:
            return min(ready, self.position)
        end = self._start
        for mark in self._marks:
            if mark.end > ready:
                if mark.first_end <= ready:
                    end = mark.last_end(ready)
                return ready if mark.free_from <= ready else max(end, self._checkpointed())
            end = mark.end
        return max(end, self._checkpointed())

    def _checkpointed(self) -> int:
        last = self._open().last
        return self._start + last.samples if last is not None else self._start

    def _write_checkpoint(self, segment: SegmentWriter, end: int, *, is_last: bool = False) -> None:
        newest: dict[str, Mark] = {}
        statistics = self._statistics
        recorded = lost = 0
        waiting: deque[Mark] = deque()
        for each in self._marks:
            mark = each
            if mark.end > end:
                if mark.first_end > end:
                    waiting.append(mark)
                    continue
                mark, rest = mark.split(end)
                waiting.append(rest)
            recorded += mark.recorded
            lost += mark.lost
            if mark.key is not None:
                newest[mark.key] = mark
        moved = {key: self._resume_at(mark) for key, mark in newest.items()}
        if recorded or lost:
            statistics = dataclasses.replace(
                statistics, recorded=statistics.recorded + recorded, lost=statistics.lost + lost
            )
        # What came late counts as lost already: here, in a frame that waits for a later checkpoint, or in a finished
        # segment, where it stays.
        if late := min(self._late, statistics.lost):
            self._late -= late
            statistics = dataclasses.replace(
                statistics, lost=statistics.lost - late, rejected=statistics.rejected + late
            )
        segment.checkpoint(end - self._start, moved, statistics, is_last=is_last)
        self._marks = waiting
        self._statistics = statistics
        remember(self._resume, moved)
        remember(self.safe, {key: resume.sequence for key, resume in moved.items()})
        self._announce(segment)
        self._tell_growth(segment)

    def _resume_at(self, mark: Mark) -> Resume:
        end_ns = ns_of(mark.track_end, mark.track_rate, self._room.epoch_ns)
        return Resume(mark.sequence, end_ns - mark.end_media_ns)

    def _announce(self, segment: SegmentWriter) -> None:
        if self._is_announced:
            return
        self._is_announced = True
        self._next_segment += 1
        header = segment.header
        self._services.send(
            SegmentStarted(
                recording_id=header.recording_id,
                segment=header.segment,
                start_ns=ns_of(header.start, header.sample_rate, header.epoch_ns),
                files=segment.files,
                sample_rate=header.sample_rate,
                channels=header.channels,
            )
        )

    def _tell_growth(self, segment: SegmentWriter) -> None:
        last = segment.last
        assert last is not None
        # The first part waits for the file's end.
        settled = sum(max(1, settled_parts(size, self._services.part_bytes)) for size in last.sizes)
        if settled == self._settled or settled == len(last.sizes):
            return
        self._settled = settled
        header = segment.header
        sizes = {str(file.container): size for file, size in zip(header.files, last.sizes, strict=True)}
        self._services.send(SegmentGrown(header.recording_id, header.segment, sizes))

    def _note_end(self, segment: SegmentWriter) -> None:
        last, header = segment.last, segment.header
        assert last is not None
        self.ended_ns = ns_of(header.start + last.samples, header.sample_rate, header.epoch_ns)

    def _forget_segment(self) -> None:
        self._marks.clear()
        self._segment = None
        self.format = None
        self._statistics = FrameStatistics()
        self._late = 0
