"""Which database a spool belongs to: a file in it says so.

Without it a spool whose disk is not mounted looks like one that lost everything, and all that waits in it for its store
would be given up.
"""

import os
from pathlib import Path
from typing import Final

import structlog

__all__ = ["MARK_NAME", "claim_spool", "spool_problem"]

MARK_NAME: Final = ".database"
_MODE: Final = 0o640

log = structlog.get_logger(__name__)


def spool_problem(spool_root: Path, epoch: str, *, awaits_files: bool) -> str | None:
    """Why this can't be the spool of the database with this log epoch; None when it is, or may be.

    `awaits_files`: the database knows of files that are on its spool alone. Blocking; raises OSError.
    """
    marked = _read_mark(spool_root)
    if marked == epoch:
        return None
    if marked:
        return f"{spool_root} is the spool of another database"
    if awaits_files and not any(
        each.is_dir() and not each.name.startswith(".") for each in spool_root.iterdir()
    ):
        return f"{spool_root} is empty, but the database knows of recordings that are nowhere else"
    return None


def claim_spool(spool_root: Path, epoch: str) -> None:
    """From now on the spool is this database's. Blocking; where nothing can be written, the next start does it."""
    if _read_mark(spool_root) == epoch:
        return
    try:
        mark = os.open(spool_root / MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        try:
            os.write(mark, f"{epoch}\n".encode())
            os.fsync(mark)
        finally:
            os.close(mark)
    except OSError as error:
        log.warning("spool_not_claimed", path=str(spool_root), error=str(error))


def _read_mark(spool_root: Path) -> str:
    """Empty where there is none, or where a crash left it so."""
    try:
        return (spool_root / MARK_NAME).read_text("utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
