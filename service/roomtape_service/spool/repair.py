"""One segment of a dead worker, from its journal and what is left of its files.

1. A journal with a closing record is a segment as it is, if its files have the sizes that the record says.
2. Otherwise each file is cut to the newest checkpoint that it holds (`verifying`), finished, and the journal closed. A
   file that holds none is set aside, and the segment lives on in the others.
3. A journal without a checkpoint never was a segment: it goes, and its files with it.

Each step can be done again, and then finds the same.
"""

import dataclasses
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from roomtape_service import failpoints
from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.positions import ns_of
from roomtape_service.recording.protocol import (
    Container,
    RecordingKind,
    Resume,
    SegmentCompleted,
    SegmentStarted,
    StartedFile,
)
from roomtape_service.spool.finishing import finish_segment
from roomtape_service.spool.journal import (
    EXTENSION,
    Checkpoint,
    ForeignJournal,
    JournalContent,
    JournalHeader,
    JournalWriter,
    MediaFile,
    read_closing,
    read_journal,
)
from roomtape_service.spool.records import SpoolRecords
from roomtape_service.spool.verifying import newest_held, regular_size

__all__ = ["Found", "RecoveredSegment", "SpoolNotWritable", "is_no_room", "mend_segment", "recover_segment"]

_UNBORN_BYTES_MAX: Final = 2 << 20
"""More than a worker holds back before it writes a checkpoint."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = structlog.get_logger(__name__)


class SpoolNotWritable(OSError):
    """A segment is whole, but can't be finished now: the disk is full, or can't be written."""


def is_no_room(error: OSError) -> bool:
    """Whether it says that the disk, or a quota on it, is full."""
    return error.errno in _NO_ROOM


@dataclass(frozen=True, slots=True)
class RecoveredSegment:
    """A segment that was found complete, or was completed.

    `known_end_ns` is the room time up to which its journal says that it was written. What its files lack of that was
    damaged: `faults` says by container what became of each such file.
    """

    header: JournalHeader
    facts: SegmentCompleted
    folder: Path
    known_end_ns: int
    faults: Mapping[Container, str] = field(default_factory=dict)

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.header.recording_id

    @property
    def task_id(self) -> str:
        """The recording's task."""
        return self.header.task_id

    @property
    def kind(self) -> RecordingKind:
        """What the recording is of."""
        return self.header.kind

    @property
    def segment(self) -> int:
        """Its number in the recording."""
        return self.header.segment

    @property
    def end_ns(self) -> int:
        """Room time after its last sample."""
        return self.facts.end_ns

    @property
    def interrupted(self) -> bool:
        """Whether its worker died before its end."""
        return self.facts.interrupted

    @property
    def resume(self) -> Mapping[str, Resume]:
        """Where the recording stood with its tracks at the end, by track key."""
        return self.facts.resume

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its journal and its files."""
        names = (file.name for file in self.header.files)
        return (self.folder / journal_name(self.header), *(self.folder / name for name in names))

    def started(self) -> SegmentStarted:
        """What its worker told, or would have told, of its start."""
        header = self.header
        return SegmentStarted(
            recording_id=header.recording_id,
            segment=header.segment,
            start_ns=ns_of(header.start, header.sample_rate, header.epoch_ns),
            files=tuple(
                StartedFile(file.container, str(self.folder / file.name), file.sample_rate, file.channels)
                for file in header.files
            ),
            sample_rate=header.sample_rate,
            channels=header.channels,
        )

    def completed(self) -> SegmentCompleted:
        """What its worker told, or would have told, of its end."""
        return self.facts


@dataclass(slots=True)
class Found:
    """What became of a journal. `names` stay in the folder; `aside` is to be kept aside, each for its fault."""

    segment: RecoveredSegment | None = None
    names: set[str] = field(default_factory=set)
    aside: list[tuple[Path, str]] = field(default_factory=list)
    gone: list[tuple[Path, str]] = field(default_factory=list)
    """Files that should be there."""
    header: JournalHeader | None = None


def journal_name(header: JournalHeader) -> str:
    """The name of a segment's journal."""
    return f"{header.recording_id}-{header.segment:06d}.{EXTENSION}"


def recover_segment(folder: Path, path: Path, records: SpoolRecords) -> Found:
    """Finishes the segment of a journal. Raises SpoolNotWritable; whatever else is wrong is in the answer."""
    found = Found()
    try:
        _recover(folder, path, records, found)
    except ForeignJournal as error:
        found.aside.append((path, str(error)))
    except OSError as error:
        if is_no_room(error) or error.errno == errno.EROFS:
            raise SpoolNotWritable(error.errno, error.strerror, str(path)) from error
        found.aside.append((path, f"it can't be read: {error.strerror}"))
    except ValueError as error:
        found.aside.append((path, f"its files are not what it says: {error}"))
    if found.segment is None and found.header is not None:
        fault = found.aside[-1][1] if found.aside else "its journal is not usable"
        for file in found.header.files:
            media = folder / file.name
            if media.name not in found.names and media not in (each for each, _ in found.aside):
                found.aside.append((media, fault))
    return found


def mend_segment(media: Path) -> Found:
    """Looks at all bytes of a closed segment of which `media` is a file that is not what was closed.

    Each file is cut to what is as it was written; one without anything such is to be set aside. Raises OSError.
    """
    folder, path = media.parent, media.with_suffix(f".{EXTENSION}")
    found = Found()
    try:
        content = read_journal(path)
        if content is not None and content.checkpoints and journal_name(content.header) == path.name:
            files = [file for file in content.header.files if os.path.lexists(folder / file.name)]
            found.header = content.header
            found.segment = _finish(folder, path, content, files, found)
    except (FileNotFoundError, ValueError) as error:
        log.error("segment_not_mended", journal=str(path), error=str(error))
    if found.segment is None and os.path.lexists(media):
        found.aside = [(media, "its bytes are not those that were recorded")]
    return found


def _recover(folder: Path, path: Path, records: SpoolRecords, found: Found) -> None:
    if regular_size(path) is None:
        raise ForeignJournal("a journal that is no regular file")
    content = read_closing(path) or read_journal(path)
    if content is None:
        if _is_torn_start(path, records):
            failpoints.hit("recovery.forget_journal")
            path.unlink()
            return
        raise ForeignJournal("a journal without its beginning")
    header = content.header
    if journal_name(header) != path.name:
        raise ForeignJournal(f"a journal of {journal_name(header)} under another name")
    found.header = header
    files = _expected(header, records)
    if not files:
        _leave_stored(folder, path, header, found)
        return
    if content.closed is not None and _has_files(folder, files, content.closed):
        found.segment = _segment(folder, content, content.closed, files)
    else:
        if content.closed is not None:
            content = read_journal(path) or content
        if content.checkpoints:
            found.segment = _finish(folder, path, content, files, found)
        elif content.closed is None and _is_unborn(folder, header, records):
            found.header = None
            _forget(folder, path, header)
            return
        else:
            raise ForeignJournal("a journal without checkpoints")
    if found.segment is not None:
        found.names |= {path.name, *(Path(file.path).name for file in found.segment.facts.files)}
        found.names |= {file.name for file in header.files if file not in files}


def _expected(header: JournalHeader, records: SpoolRecords) -> list[MediaFile]:
    """Files that must be on the spool."""
    place = header.recording_id, header.segment
    return [file for file in header.files if (*place, file.container) not in records.settled]


def _leave_stored(folder: Path, path: Path, header: JournalHeader, found: Found) -> None:
    """All files are stored: what is left of them is removed by who stored them, at last the journal."""
    found.names |= {path.name, *(file.name for file in header.files)}
    if not any(os.path.lexists(folder / file.name) for file in header.files):
        failpoints.hit("recovery.forget_journal")
        path.unlink()


def _finish(
    folder: Path, path: Path, content: JournalContent, files: Sequence[MediaFile], found: Found
) -> RecoveredSegment | None:
    header = content.header
    ends = [
        newest_held(folder, header, index, content.checkpoints) if file in files else None
        for index, file in enumerate(header.files)
    ]
    for file, end in zip(header.files, ends, strict=True):
        media = folder / file.name
        if file not in files or end is not None:
            continue
        if os.path.lexists(media):
            found.aside.append((media, "it does not hold even the first checkpoint of its journal"))
        else:
            found.gone.append((media, "it is gone"))
    last = max((end for end in ends if end is not None), key=lambda end: end.samples, default=None)
    if last is None:
        found.aside.append((path, "none of its files can be used"))
        return None
    newest = content.checkpoints[-1]
    is_whole = last.is_last and all(
        end == last for file, end in zip(header.files, ends, strict=True) if file in files
    )
    resume = _resume(header, content.checkpoints)
    facts = finish_segment(folder, header, last, resume, interrupted=not is_whole, ends=ends)
    _close(path, content, facts)
    log.info(
        "segment_recovered",
        recording=header.recording_id,
        segment=header.segment,
        samples=facts.sample_count,
        lost_samples=newest.samples - last.samples,
    )
    return _segment(folder, content, facts, files)


def _close(path: Path, content: JournalContent, facts: SegmentCompleted) -> None:
    failpoints.hit("recovery.close")
    try:
        journal = JournalWriter(str(path), content.whole_bytes)
        try:
            journal.append(facts)
            journal.sync()
        finally:
            journal.close()
    except OSError as error:
        if not is_no_room(error):
            raise
        # All that was written lies in place; the record is for the next start, which can do without.
        log.warning("closing_record_waits", journal=str(path), error=str(error))


def _segment(
    folder: Path, content: JournalContent, facts: SegmentCompleted, expected: Sequence[MediaFile]
) -> RecoveredSegment:
    header = content.header
    samples = max([facts.sample_count, *(each.samples for each in content.checkpoints[-1:])])
    known_end_ns = ns_of(header.start + samples, header.sample_rate, header.epoch_ns)
    wanted = {file.container for file in expected}
    # The folder may have moved since the record was written.
    files = {
        file.container: dataclasses.replace(file, path=str(folder / Path(file.path).name))
        for file in facts.files
        if file.container in wanted
    }
    faults: dict[Container, str] = {}
    for media in expected:
        file = files.get(media.container)
        end_ns = (file.end_ns or facts.end_ns) if file is not None else None
        if end_ns is None:
            faults[media.container] = f"{media.name} is gone, or damaged from its beginning"
        elif end_ns < known_end_ns:
            lost = (known_end_ns - end_ns) / NANOSECONDS
            faults[media.container] = f"{media.name} is damaged: its last {lost:.3f} s are lost"
    whole = dataclasses.replace(facts, files=tuple(files.values()))
    return RecoveredSegment(header, whole, folder, known_end_ns, faults)


def _has_files(folder: Path, expected: Sequence[MediaFile], facts: SegmentCompleted) -> bool:
    """Whether the files that a closing record speaks of have its sizes. Those that were lost before are no news."""
    sizes = {file.container: file.size for file in facts.files}
    return all(
        regular_size(folder / file.name) == sizes[file.container]
        for file in expected
        if file.container in sizes
    )


def _is_torn_start(journal: Path, records: SpoolRecords) -> bool:
    """Whether the worker died while it wrote the header: media files are made after it."""
    recording_id, _, number = journal.stem.rpartition("-")
    if number.isdecimal() and (recording_id, int(number)) in records.begun:
        return False
    start = f"{journal.stem}."
    return not any(each.startswith(start) and each != journal.name for each in os.listdir(journal.parent))


def _is_unborn(folder: Path, header: JournalHeader, records: SpoolRecords) -> bool:
    """Whether the worker died before the first checkpoint, of which nobody was told then."""
    if (header.recording_id, header.segment) in records.begun:
        return False
    sizes = (regular_size(folder / file.name) for file in header.files)
    return all(size is None or size <= _UNBORN_BYTES_MAX for size in sizes)


def _forget(folder: Path, path: Path, header: JournalHeader) -> None:
    for file in header.files:
        failpoints.hit("recovery.forget")
        (folder / file.name).unlink(missing_ok=True)
    failpoints.hit("recovery.forget_journal")
    path.unlink()


def _resume(header: JournalHeader, checkpoints: Sequence[Checkpoint]) -> dict[str, Resume]:
    """Of all checkpoints, also of those that files do not hold any more: publishers were told that it is safe."""
    resume = dict(header.resume)
    for checkpoint in checkpoints:
        resume.update(checkpoint.resume)
    return resume
