"""One supervisor a data folder."""

import asyncio
import fcntl
import os
from pathlib import Path

import structlog

__all__ = ["DataDirLock", "LockedError"]

LOCK_FILE = "supervisor.lock"

_POLL_SECONDS = 0.05


class LockedError(Exception):
    """Another service runs on the data folder."""


class DataDirLock:
    """A lock on `folder` that lasts until the last process that inherited its descriptor has ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """To be inherited by children."""
        return self._descriptor

    async def acquire(self, wait_seconds: float) -> None:
        """Takes the lock; makes the folder.

        If its holder's supervisor is gone and only children are left, waits for them up to `wait_seconds`.
        Raises LockedError otherwise.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._take(descriptor, wait_seconds)
        except BaseException:
            os.close(descriptor)
            raise
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock up. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _take(self, descriptor: int, wait_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        said = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace")
            if _alive(holder):
                raise LockedError(
                    f"{self._path.parent.parent}: process {holder} serves this data folder; stop it, or choose another "
                    "data_dir."
                )
            if loop.time() >= deadline:
                raise LockedError(
                    f"{self._path.parent.parent}: processes of an earlier service still run on this data folder and "
                    f"did not end within {wait_seconds:g} s; end them."
                )
            if not said:
                said = True
                structlog.get_logger("roomtape.supervisor").info(
                    "waiting_for_earlier_processes", holder=holder
                )
            await asyncio.sleep(_POLL_SECONDS)


def _alive(holder: str) -> bool:
    try:
        os.kill(int(holder), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
