"""What goes from the spool once it is in the store."""

import os
from contextlib import suppress
from pathlib import Path

import structlog

from roomtape_service import failpoints
from roomtape_service.spool.aside import is_aside
from roomtape_service.spool.generation import LOCK_NAME, try_lock
from roomtape_service.spool.journal import EXTENSION

__all__ = ["remove_empty_folders", "remove_stored"]

log = structlog.get_logger(__name__)


def remove_stored(path: Path, *, is_whole_segment: bool) -> None:
    """Removes a media file; with the segment's last one its journal; with a dead worker's last segment its folder.

    Nothing happens for what is gone already. Blocks; raises OSError.
    """
    # The journal last: media without one would look foreign to a recovery.
    failpoints.hit("spool.remove_media")
    path.unlink(missing_ok=True)
    if is_whole_segment:
        failpoints.hit("spool.remove_journal")
        path.with_suffix(f".{EXTENSION}").unlink(missing_ok=True)
        _remove_empty(path.parent)


def remove_empty_folders(spool_root: Path) -> None:
    """Removes the folders of workers who died with nothing in them: all was stored before, or nothing recorded.

    Blocks; what can't be removed stays until the next time.
    """
    for folder in spool_root.iterdir():
        if folder.name.startswith(".") or is_aside(folder.name) or not (folder / LOCK_NAME).is_file():
            continue
        try:
            _remove_empty(folder)
        except OSError as error:
            log.warning("spool_folder_not_removed", path=str(folder), error=str(error))


def _remove_empty(folder: Path) -> None:
    with suppress(FileNotFoundError):
        if any(entry.name != LOCK_NAME for entry in folder.iterdir()):
            return
        lock = try_lock(folder)
        if lock is None:
            return
        try:
            failpoints.hit("spool.remove_lock")
            (folder / LOCK_NAME).unlink(missing_ok=True)
            failpoints.hit("spool.remove_folder")
            folder.rmdir()
        finally:
            os.close(lock)
