"""What can't be used of the spool is kept aside, in `<spool>/aside/`, for people to look at; nothing is removed."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from roomtape_service import failpoints

__all__ = ["ASIDE_NAME", "Damage", "find_aside", "is_aside", "keep_aside", "set_aside"]

ASIDE_NAME: Final = "aside"
"""The folder of the spool."""

_FOLDERS_MAX: Final = 9
_NAME_BYTES_MAX: Final = 200
"""Of a file system's 255, with room for a number."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the spool that is not, or not any more, what a worker wrote."""

    path: Path
    """Where it was found."""
    fault: str
    """What is wrong with it."""
    kept: Path | None = None
    """Where it is now; None if it stays where it is, or there is nothing to keep."""
    recording_id: str = ""
    segment: int = -1


def is_aside(name: str) -> bool:
    """Whether a folder of this name in the spool is one that things are kept in."""
    return name == ASIDE_NAME or name.startswith(f"{ASIDE_NAME}-")


def keep_aside(path: Path, spool_root: Path) -> Path | None:
    """Moves a media file that nobody will upload aside, under a name that tells where it was.

    Returns its new place; None when it is not there, say since it was moved before. Blocks; raises OSError.
    """
    target = _free_name(_folder(spool_root), path)
    failpoints.hit("spool.keep_aside")
    try:
        path.rename(target)
    except FileNotFoundError:
        return None
    log.warning("spool_file_set_aside", path=str(path), target=str(target))
    return target


def set_aside(
    spool_root: Path, path: Path, fault: str, *, recording_id: str = "", segment: int = -1
) -> Damage:
    """Moves a file or a folder aside that recovery can't use. What can't be moved is left where it is; never raises."""
    if not os.path.lexists(path):
        return Damage(path, fault, None, recording_id, segment)
    try:
        kept = _free_name(_folder(spool_root), path)
        failpoints.hit("recovery.aside")
        path.rename(kept)
    except OSError as error:
        log.error("spool_file_not_set_aside", path=str(path), fault=fault, error=str(error))
        return Damage(path, fault, None, recording_id, segment)
    log.error("spool_file_set_aside", path=str(path), target=str(kept), fault=fault)
    return Damage(path, fault, kept, recording_id, segment)


def find_aside(spool_root: Path, path: Path) -> Path | None:
    """Where a file of a worker's folder is kept that was moved aside; None if it was not."""
    for folder in _folders(spool_root):
        kept = folder / next(_names(path))
        if os.path.lexists(kept):
            return kept
    return None


def _folders(spool_root: Path) -> Iterator[Path]:
    """Where things are kept: the first of these that is a folder, or can be made."""
    yield spool_root / ASIDE_NAME
    yield from (spool_root / f"{ASIDE_NAME}-{number}" for number in range(2, _FOLDERS_MAX + 1))


def _folder(spool_root: Path) -> Path:
    last: OSError = FileExistsError(ASIDE_NAME)
    for folder in _folders(spool_root):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            # Somebody put something else there.
            last = error
            continue
        if not folder.is_symlink():
            return folder
    raise last


def _names(path: Path) -> Iterator[str]:
    name = os.fsencode(f"{path.parent.name}-{path.name}")[:_NAME_BYTES_MAX]
    yield os.fsdecode(name)
    yield from (f"{os.fsdecode(name)}-{number}" for number in itertools.count(2))


def _free_name(folder: Path, path: Path) -> Path:
    return next(folder / name for name in _names(path) if not os.path.lexists(folder / name))
