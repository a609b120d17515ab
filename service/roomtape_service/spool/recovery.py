"""What dead workers left on the spool becomes segments again.

For every folder whose lock is free:

1. A journal with a closing record is a segment as it is.
2. One with checkpoints is cut to the newest of them that the files still hold, finished, and closed.
3. One without a checkpoint never was a segment: it goes, and its files with it.
4. Whatever is left (files that no journal names, journals that can't be read, files that are shorter than every
   checkpoint says) goes to `aside/`, for people to look at.

A crash in between changes nothing: each step can be done again.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from roomtape_service import failpoints
from roomtape_service.recording.positions import ns_of
from roomtape_service.recording.protocol import (
    RecordingKind,
    Resume,
    SegmentCompleted,
    SegmentStarted,
    StartedFile,
)
from roomtape_service.spool.finishing import finish_segment
from roomtape_service.spool.generation import LOCK_NAME, try_lock
from roomtape_service.spool.journal import (
    EXTENSION,
    Checkpoint,
    JournalContent,
    JournalHeader,
    JournalWriter,
    read_journal,
)

__all__ = ["ASIDE_NAME", "RecoveredSegment", "recover"]

ASIDE_NAME: Final = "aside"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredSegment:
    """A segment that was found complete, or was completed."""

    header: JournalHeader
    facts: SegmentCompleted
    folder: Path

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

    def started(self) -> SegmentStarted:
        """What its worker told, or would have told, of its start."""
        header = self.header
        return SegmentStarted(
            recording_id=header.recording_id,
            segment=header.segment,
            start_ns=ns_of(header.start, header.sample_rate, header.epoch_ns),
            files=tuple(StartedFile(file.container, str(self.folder / file.name)) for file in header.files),
            sample_rate=header.sample_rate,
            channels=header.channels,
        )

    def completed(self) -> SegmentCompleted:
        """What its worker told, or would have told, of its end."""
        return self.facts


def recover(spool_root: Path) -> list[RecoveredSegment]:
    """Finishes what can be finished, and returns all segments of dead workers, in the order of their numbers.

    Blocking; one at a time for a spool. Raises OSError when the spool can't be read or written.
    """
    segments: list[RecoveredSegment] = []
    for folder in _generations(spool_root):
        lock = try_lock(folder)
        if lock is None:
            continue
        try:
            segments += _recover_folder(folder, spool_root / ASIDE_NAME)
        finally:
            os.close(lock)
    return sorted(segments, key=lambda each: (each.recording_id, each.segment))


def _generations(spool_root: Path) -> Iterator[Path]:
    if not spool_root.is_dir():
        return
    for folder in sorted(spool_root.iterdir()):
        if folder.is_dir() and folder.name != ASIDE_NAME and not folder.name.startswith("."):
            yield folder


def _recover_folder(folder: Path, aside: Path) -> list[RecoveredSegment]:
    segments: list[RecoveredSegment] = []
    known = {LOCK_NAME}
    for path in sorted(folder.glob(f"*.{EXTENSION}")):
        content = read_journal(path)
        if content is None:
            if _is_unborn(path):
                failpoints.hit("recovery.forget_journal")
                path.unlink()
            continue
        segment = _recover_segment(folder, path, content)
        if segment is not None:
            segments.append(segment)
        if segment is not None or not content.checkpoints:
            known |= {path.name, *(file.name for file in content.header.files)}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            _set_aside(path, aside)
    return segments


def _is_unborn(journal: Path) -> bool:
    """Whether the worker died while it wrote the header: media files are made after it."""
    return not any(journal.parent.glob(f"{journal.stem}.[!j]*"))


def _recover_segment(folder: Path, path: Path, content: JournalContent) -> RecoveredSegment | None:
    header = content.header
    if content.closed is not None:
        return RecoveredSegment(header, content.closed, folder)
    if not content.checkpoints:
        for file in header.files:
            failpoints.hit("recovery.forget")
            (folder / file.name).unlink(missing_ok=True)
        failpoints.hit("recovery.forget_journal")
        path.unlink()
        return None
    try:
        facts = _finish(folder, content)
    except (ValueError, FileNotFoundError) as error:
        log.error("segment_damaged", journal=str(path), error=str(error))
        return None
    if facts is None:
        log.error(
            "segment_damaged", journal=str(path), error="its files are shorter than its first checkpoint"
        )
        return None
    journal = JournalWriter(str(path), content.whole_bytes)
    failpoints.hit("recovery.close")
    journal.append(facts)
    journal.sync()
    journal.close()
    log.info(
        "segment_recovered", recording=header.recording_id, segment=header.segment, samples=facts.sample_count
    )
    return RecoveredSegment(header, facts, folder)


def _finish(folder: Path, content: JournalContent) -> SegmentCompleted | None:
    """None if the files hold not even the first checkpoint: then they lost what the kernel had."""
    header = content.header
    sizes = [(folder / file.name).stat().st_size for file in header.files]
    held = [
        checkpoint
        for checkpoint in content.checkpoints
        if all(size >= needed for size, needed in zip(sizes, checkpoint.sizes, strict=True))
    ]
    if not held:
        return None
    last = held[-1]
    interrupted = not last.is_last
    return finish_segment(folder, header, last, _resume(header, held), interrupted=interrupted)


def _resume(header: JournalHeader, checkpoints: list[Checkpoint]) -> dict[str, Resume]:
    resume = dict(header.resume)
    for checkpoint in checkpoints:
        resume.update(checkpoint.resume)
    return resume


def _set_aside(path: Path, aside: Path) -> None:
    aside.mkdir(exist_ok=True)
    target = aside / f"{path.parent.name}-{path.name}"
    log.error("spool_file_set_aside", path=str(path), target=str(target))
    failpoints.hit("recovery.aside")
    path.rename(target)
