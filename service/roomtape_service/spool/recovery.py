"""What dead workers left on the spool becomes segments again.

For every folder whose lock is free, each journal is made a segment (`repair`), many at a time. Whatever no journal
names, and what can't be used, goes to `aside/`, for people to look at; so do foreign files and folders beside those of
the workers. Nothing of that keeps the rest from being recovered. A crash in between changes nothing: each step can be
done again.

What is detected: files that are shorter, longer, gone, or of another kind; bytes that are not those that a checkpoint
speaks of, in segments that were not closed yet or whose size is wrong; journals without a beginning or of another
version; second copies. Bytes that changed in a closed file of the right size are found when it is uploaded, which
reads it anyway.
"""

import os
import re
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from roomtape_service import failpoints
from roomtape_service.spool.aside import ASIDE_NAME, Damage, is_aside, set_aside
from roomtape_service.spool.generation import LOCK_NAME, try_lock
from roomtape_service.spool.journal import EXTENSION
from roomtape_service.spool.records import SpoolRecords
from roomtape_service.spool.repair import Found, RecoveredSegment, SpoolNotWritable, recover_segment
from roomtape_service.spool.verifying import regular_size

__all__ = ["ASIDE_NAME", "RecoveredSegment", "Recovery", "recordings_on_spool", "recover"]

_THREADS: Final = max(4, 2 * (os.cpu_count() or 1))
"""Hashing and waiting for the disk go side by side."""
_LOCK_PAUSE_SECONDS: Final = 0.05
_MOUNTED: Final = frozenset({"lost+found"})
"""Folders that a file system makes for itself at its root."""
_UNFINISHED: Final = re.compile(r"\.\d{20}-\d+-\d+")
"""A worker's folder before it has its lock."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Recovery:
    """What was found."""

    segments: list[RecoveredSegment] = field(default_factory=list)
    """In the order of their numbers; without those that the database has as they are."""
    damages: list[Damage] = field(default_factory=list)
    living: list[Path] = field(default_factory=list)
    """Folders of processes that live, and were not looked into."""


def recover(
    spool_root: Path,
    *,
    only: Collection[Path] | None = None,
    records: SpoolRecords | None = None,
    wait_seconds: float = 0.0,
) -> Recovery:
    """Finishes what can be finished of dead workers, and tells of their segments and of what is damaged.

    `only`: these folders, and not all. Waits up to `wait_seconds` for workers that are just ending. Blocking; one at a
    time for a spool. Raises OSError when the spool can't be listed, and SpoolNotWritable when segments wait for room on
    its disk, after all others were finished.
    """
    recovery = Recovery()
    only = None if only is None else [folder for folder in only if folder.is_dir()]
    records = records or SpoolRecords()
    if not spool_root.is_dir():
        return recovery
    until = time.monotonic() + wait_seconds
    refused: list[SpoolNotWritable] = []
    with ExitStack() as locks:
        folders = []
        for folder in _generations(spool_root, recovery) if only is None else only:
            lock = _lock(folder, until, recovery)
            if lock is not None:
                locks.callback(os.close, lock)
                folders.append(folder)
        journals = [(folder, path) for folder in folders for path in _journals(folder, recovery)]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="recovery") as threads:
            futures = [threads.submit(recover_segment, folder, path, records) for folder, path in journals]
        stay: dict[Path, set[str]] = {folder: {LOCK_NAME} for folder in folders}
        for (folder, path), future in zip(journals, futures, strict=True):
            try:
                found = future.result()
            except SpoolNotWritable as error:
                refused.append(error)
                stay[folder] |= {each.name for each in folder.glob(f"{path.stem}.*")}
                continue
            stay[folder] |= found.names
            _take(spool_root, found, records, recovery)
        for folder in folders:
            _sweep(spool_root, folder, stay[folder], records, recovery)
    recovery.segments.sort(key=lambda each: (each.recording_id, each.segment))
    if refused:
        raise refused[0]
    return recovery


def recordings_on_spool(spool_root: Path, only: Collection[Path] | None = None) -> set[str]:
    """The recordings that files on the spool, or in some of its folders, are of, by their names. Blocking."""
    folders = list(spool_root.glob("*/")) if only is None else only
    return {path.stem.rpartition("-")[0] for folder in folders for path in folder.glob("*-*.*")}


def _generations(spool_root: Path, recovery: Recovery) -> Iterator[Path]:
    """Folders of workers: those with a lock, or with journals, should the lock be gone. Other things go aside."""
    for path in sorted(spool_root.iterdir()):
        name = path.name
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and _UNFINISHED.fullmatch(name):
            _remove_unfinished(path)
        if name.startswith(".") or (is_folder and (is_aside(name) or name in _MOUNTED)):
            continue
        if is_folder and _is_generation(path):
            yield path
        else:
            recovery.damages.append(set_aside(spool_root, path, "nothing of the spool's"))


def _is_generation(folder: Path) -> bool:
    try:
        return any(each.name == LOCK_NAME or each.name.endswith(f".{EXTENSION}") for each in folder.iterdir())
    except OSError:
        return True


def _lock(folder: Path, until: float, recovery: Recovery) -> int | None:
    while True:
        try:
            lock = try_lock(folder)
        except OSError as error:
            fault = f"its lock can't be taken: {error.strerror}"
            log.error("spool_folder_not_read", path=str(folder), fault=fault)
            recovery.damages.append(Damage(folder, fault))
            return None
        if lock is not None:
            return lock
        if time.monotonic() >= until:
            recovery.living.append(folder)
            return None
        time.sleep(_LOCK_PAUSE_SECONDS)


def _journals(folder: Path, recovery: Recovery) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(f".{EXTENSION}"))
    except OSError as error:
        fault = f"it can't be read: {error.strerror}"
        log.error("spool_folder_not_read", path=str(folder), fault=fault)
        recovery.damages.append(Damage(folder, fault))
        return []


def _take(spool_root: Path, found: Found, records: SpoolRecords, recovery: Recovery) -> None:
    header = found.header
    recording_id, number = (header.recording_id, header.segment) if header else ("", -1)
    for path, fault in found.aside:
        if os.path.lexists(path) and not _is_complete(path, records):
            damage = set_aside(spool_root, path, fault, recording_id=recording_id, segment=number)
            recovery.damages.append(damage)
    for path, fault in found.gone:
        log.error("spool_file_gone", path=str(path))
        recovery.damages.append(Damage(path, fault, None, recording_id, number))
    if found.segment is not None and not _is_known(found.segment, records):
        recovery.segments.append(found.segment)


def _sweep(
    spool_root: Path, folder: Path, stay: Collection[str], records: SpoolRecords, recovery: Recovery
) -> None:
    try:
        left = [path for path in sorted(folder.iterdir()) if path.name not in stay]
    except OSError:
        return
    for path in left:
        if _is_complete(path, records):
            continue
        recovery.damages.append(set_aside(spool_root, path, "no journal names it"))


def _is_known(segment: RecoveredSegment, records: SpoolRecords) -> bool:
    """Whether the database has all of a segment as it is: while a store is down there may be thousands."""
    files = segment.completed().files
    return (
        bool(files)
        and all(records.complete.get(os.path.basename(file.path)) == (file.size, file.path) for file in files)
        and len(files) + _settled(segment, records) == len(segment.header.files)
    )


def _settled(segment: RecoveredSegment, records: SpoolRecords) -> int:
    place = segment.recording_id, segment.segment
    return sum((*place, file.container) in records.settled for file in segment.header.files)


def _is_complete(path: Path, records: SpoolRecords) -> bool:
    """Whether the database knows all of a file that upload needs; if its bytes are others, that finds out."""
    try:
        return path.name in records.complete and regular_size(path) == records.complete[path.name][0]
    except OSError:
        return False


def _remove_unfinished(folder: Path) -> None:
    try:
        lock = try_lock(folder)
        if lock is None:
            return
        os.close(lock)
        failpoints.hit("spool.remove_lock")
        (folder / LOCK_NAME).unlink()
        failpoints.hit("spool.remove_folder")
        folder.rmdir()
    except OSError as error:
        log.warning("spool_folder_not_removed", path=str(folder), error=str(error))
