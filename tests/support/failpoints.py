"""Which failpoints the whole suite comes by: each name must be hit by some test.

This process and every service that the tests start write their hits into one log. FAILPOINTS_LOG names a file that
keeps them from run to run; with FAILPOINTS_ENFORCED=1, which is for the last of the runs that together are all tests, a
name that none of them hit fails it.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from roomtape_service import failpoints
from roomtape_service.failpoints import COMMITS, FAILPOINTS

__all__ = ["SESSION_FILE", "count_hits_of"]

_folder = Path(tempfile.mkdtemp(prefix="roomtape-failpoints-"))

_KEPT = os.environ.setdefault("FAILPOINTS_LOG", str(_folder / "kept"))
"""Where the hits of the runs before are, and this one's go; the processes that share a run inherit it."""

SESSION_FILE = _folder / "failpoints.json"
"""For services that a test starts without a file of its own."""

_LOG = _folder / "hits"

_ENFORCED = "FAILPOINTS_ENFORCED"
"""Set for the last run: then a failpoint that no test came by fails it, and is named."""

_ALL = frozenset(FAILPOINTS) | {f"commit:{name}" for name in COMMITS}


_others: list[Path] = []


def count_hits_of(log: Path) -> None:
    """What is in this log counts too: that of a service with a file of its own."""
    _others.append(log)


def _own_hits() -> set[str]:
    return {name for log in (_LOG, *_others) for name in _names_in(log)}


def _hits() -> set[str]:
    return _own_hits() | _names_in(Path(_KEPT))


def _names_in(log: Path) -> set[str]:
    return {line.split()[0] for line in log.read_text("utf-8").splitlines()} if log.exists() else set()


def pytest_configure(config: pytest.Config) -> None:
    SESSION_FILE.write_text(json.dumps({"log": str(_LOG), "arms": []}))
    failpoints.arm(SESSION_FILE)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    with Path(_KEPT).open("a", encoding="utf-8") as kept:
        kept.write("".join(f"{name}\n" for name in sorted(_own_hits())))
    if os.environ.get(_ENFORCED) and exitstatus == 0 and _ALL - _hits():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = sorted(_ALL - _hits())
    terminalreporter.write_line(f"failpoints: {len(_ALL) - len(missing)} of {len(_ALL)} were hit")
    if os.environ.get(_ENFORCED) and missing:
        terminalreporter.write_line(f"No test came by: {', '.join(missing)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    for path in _folder.iterdir():
        path.unlink()
    _folder.rmdir()
