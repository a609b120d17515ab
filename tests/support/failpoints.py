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

SESSION_FILE = _folder / "failpoints.json"
"""For services that a test starts without a file of its own."""

_LOG = _folder / "hits"

_KEPT = os.environ.get("FAILPOINTS_LOG", "")
"""Where the hits of the runs before are, and this one's go."""

_ENFORCED = "FAILPOINTS_ENFORCED"
"""Set for the last run: then a failpoint that no test came by fails it, and is named."""

_ALL = frozenset(FAILPOINTS) | {f"commit:{name}" for name in COMMITS}


_others: list[Path] = []


def count_hits_of(log: Path) -> None:
    """What is in this log counts too: that of a service with a file of its own."""
    _others.append(log)


def _hits() -> set[str]:
    logs = (_LOG, *_others, *([Path(_KEPT)] if _KEPT else ()))
    texts = [log.read_text("utf-8") for log in logs if log.exists()]
    return {line.split()[0] for text in texts for line in text.splitlines() if line}


def pytest_configure(config: pytest.Config) -> None:
    SESSION_FILE.write_text(json.dumps({"log": str(_LOG), "arms": []}))
    failpoints.arm(SESSION_FILE)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get(_ENFORCED) and exitstatus == 0 and _ALL - _hits():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = sorted(_ALL - _hits())
    terminalreporter.write_line(f"failpoints: {len(_ALL) - len(missing)} of {len(_ALL)} were hit")
    if (os.environ.get(_ENFORCED) or _KEPT) and missing:
        terminalreporter.write_line(f"No test came by: {', '.join(missing)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _KEPT:
        Path(_KEPT).write_text("".join(f"{name}\n" for name in sorted(_hits())), "utf-8")
    for path in _folder.iterdir():
        path.unlink()
    _folder.rmdir()
