"""Named places where a crash or a failing disk would hurt most; tests make these happen there.

`hit(name)` stands before each rename, removal, part that is sent and upload that is completed, and around each commit.
It does nothing unless the setting `failpoints_file` names a JSON file, which the settings refuse where other machines
can call:

    {"log": "/tmp/hits",
     "arms": [{"name": "upload.part", "action": "kill", "at": 3},
              {"name": "spool.seal", "action": "error", "errno": "ENOSPC", "times": 2},
              {"name": "upload.complete", "action": "pause", "until": "/tmp/go-on"}],
     "clock_offset_seconds": -3600,
     "part_bytes": 5242880}

1. Each hit is a line of `log`: the name, the process id and, where something was done, what.
2. An arm acts from the `at`-th hit on (1) that its process makes of the name, and `times` times (1) in all processes
   together: beside the log a file `.fired-…` remembers each.
3. `kill` is SIGKILL of the process itself, `error` is OSError with that errno, `pause` waits in place, with all of its
   thread, until a file is there.
4. The file is read again when it was replaced; `clock_offset_seconds` is where a process that starts later finds its
   UTC, as if the machine's clock had been set, and `part_bytes` the size of the parts that it sends.
"""

import errno
import functools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from roomtape_service.failpoint_names import COMMITS, FAILPOINTS

__all__ = [
    "AFTER",
    "COMMITS",
    "FAILPOINTS",
    "FailpointsError",
    "Overrides",
    "arm",
    "hit",
    "hit_commit",
    "name_of",
    "overrides",
]

AFTER: Final = ":after"
"""Ends the name of the hit that follows a commit."""

_COMMIT: Final = "commit:"
_PACKAGE: Final = "roomtape_service."

_PAUSE_SECONDS: Final = 0.01

_ACTIONS: Final = ("kill", "error", "pause")


class FailpointsError(ValueError):
    """A file that does not say what should go wrong; the text says why."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What else a test changes of a process that starts."""

    clock_offset_ns: int = 0
    """Added to the machine's UTC."""
    part_bytes: int | None = None
    """Size of the parts of an upload; None is as ever."""


@dataclass(frozen=True, slots=True)
class _Arm:
    action: str
    at: int
    times: int
    number: int
    """An errno."""
    until: Path | None


@dataclass(slots=True)
class _Armed:
    path: Path
    arms: dict[str, list[_Arm]] = field(default_factory=dict)
    log: Path | None = None
    version: tuple[int, int] = (0, 0)
    hits: Counter[str] = field(default_factory=Counter)


_armed: _Armed | None = None
_overrides = Overrides()


def hit(name: str) -> None:
    """Here is the place `name`. Raises the OSError that a test wants."""
    if _armed is not None:
        _hit(_armed, name)


def hit_commit(name: str, *, is_durable: bool = False) -> None:
    """Here the unit of work `name`, one of `COMMITS`, is committed, or was."""
    if _armed is not None:
        _hit(_armed, f"{_COMMIT}{name}{AFTER if is_durable else ''}")


def name_of(work: Callable[..., object]) -> str:
    """The name of a unit of work out of its function; empty while nothing is armed."""
    if _armed is None:
        return ""
    while isinstance(work, functools.partial):
        work = work.func
    return f"{work.__module__}.{work.__qualname__}".removeprefix(_PACKAGE).replace(".<locals>", "")


def overrides() -> Overrides:
    """What a test changes of this process, as of `arm`."""
    return _overrides


def arm(path: Path) -> None:
    """From now on `hit` does what the file says. Raises FailpointsError."""
    global _armed, _overrides
    armed = _Armed(path)
    content = _load(armed)
    part_bytes = content.get("part_bytes")
    _overrides = Overrides(
        round(_number(content.get("clock_offset_seconds", 0.0)) * 1e9),
        None if part_bytes is None else int(_number(part_bytes)),
    )
    _armed = armed


def _hit(armed: _Armed, name: str) -> None:
    status = os.stat(armed.path)
    if (status.st_mtime_ns, status.st_ino) != armed.version:
        _load(armed)
    armed.hits[name] += 1
    for each in armed.arms.get(name, ()):
        if armed.hits[name] >= each.at and _is_first(armed, name, each):
            _write(armed, f"{name} {os.getpid()} {each.action}")
            _act(name, each)
            return
    _write(armed, f"{name} {os.getpid()}")


def _act(name: str, wanted: _Arm) -> None:
    if wanted.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted.action == "error":
        raise OSError(wanted.number, f"{os.strerror(wanted.number)} (failpoint {name})")
    while wanted.until is not None and not wanted.until.exists():
        time.sleep(_PAUSE_SECONDS)


def _is_first(armed: _Armed, name: str, wanted: _Arm) -> bool:
    """Whether one of the times that the arm may act is left, for this process."""
    log = armed.log
    assert log is not None
    identity = f"{name}-{wanted.action}-{armed.version[0]}".replace("/", "_")
    for time_of in range(wanted.times):
        try:
            os.close(os.open(f"{log}.fired-{identity}-{time_of}", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        return True
    return False


def _write(armed: _Armed, line: str) -> None:
    if armed.log is None:
        return
    descriptor = os.open(armed.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _load(armed: _Armed) -> Mapping[str, object]:
    try:
        with armed.path.open("rb") as file:
            content: dict[str, Any] = json.loads(file.read())
            status = os.fstat(file.fileno())
        wanted: dict[str, list[_Arm]] = {}
        for entry in content.get("arms", ()):
            wanted.setdefault(str(entry["name"]), []).append(_read_arm(entry))
        log = Path(content["log"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FailpointsError(f"{armed.path} can't be used: {type(error).__name__}: {error}") from error
    armed.arms, armed.log = wanted, log
    armed.version = (status.st_mtime_ns, status.st_ino)
    armed.hits.clear()
    return content


def _read_arm(entry: Mapping[str, object]) -> _Arm:
    name, action, until = str(entry["name"]), str(entry["action"]), entry.get("until")
    if not _is_declared(name):
        raise ValueError(f"{name!r} is no failpoint")
    if action not in _ACTIONS:
        raise ValueError(f"{action!r} is no action; write one of {', '.join(_ACTIONS)}")
    if action == "error" and name.endswith(AFTER):
        raise ValueError(f"{name!r}: what is done can't fail any more")
    return _Arm(
        action,
        int(_number(entry.get("at", 1))),
        int(_number(entry.get("times", 1))),
        getattr(errno, str(entry.get("errno", "EIO"))),
        Path(str(until)) if until else None,
    )


def _is_declared(name: str) -> bool:
    return name in FAILPOINTS or (
        name.startswith(_COMMIT) and name.removeprefix(_COMMIT).removesuffix(AFTER) in COMMITS
    )


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return value
