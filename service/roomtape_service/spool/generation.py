"""The folder of one worker process: `<spool>/<generation>/`, locked for the life of the process."""

import fcntl
import os
from pathlib import Path

from roomtape_service import failpoints

__all__ = ["LOCK_NAME", "Generation", "try_lock"]

LOCK_NAME = "lock"
_FOLDER_MODE = 0o750
_FILE_MODE = 0o640


class Generation:
    """Makes a locked folder below `spool_root`; others see it with its lock or not at all."""

    def __init__(self, spool_root: Path, name: str) -> None:
        self.name = name
        self.folder = spool_root / name
        self._lock = -1

    def open(self) -> None:
        """Raises OSError."""
        unfinished = self.folder.with_name(f".{self.name}")
        unfinished.mkdir(_FOLDER_MODE, parents=True)
        self._lock = os.open(unfinished / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        failpoints.hit("generation.appear")
        unfinished.rename(self.folder)

    def close(self) -> None:
        """Gives the lock back; segments stay. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def try_lock(folder: Path) -> int | None:
    """Takes the lock of a folder whose process is gone; None while it lives.

    Returns a file descriptor that holds the lock until it is closed. Raises OSError.
    """
    fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
