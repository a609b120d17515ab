"""Which failpoints the whole suite comes by: each name must be hit by some test.

This process and every service that the tests start write their hits into one log. When all of `tests` ran, and none
failed, a name that nobody hit fails the run.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from roomtape_service import failpoints
from roomtape_service.failpoints import COMMITS, FAILPOINTS

__all__ = ["SESSION_FILE", "add_hits"]

_folder = Path(tempfile.mkdtemp(prefix="roomtape-failpoints-"))

SESSION_FILE = _folder / "failpoints.json"
"""For services that a test starts without a file of its own."""

_LOG = _folder / "hits"

_ALL = frozenset(FAILPOINTS) | {f"commit:{name}" for name in COMMITS}


def add_hits(names: set[str]) -> None:
    """What a service hit that had a file of its own."""
    with _LOG.open("a") as log:
        log.writelines(f"{name}\n" for name in sorted(names))


def _hits() -> set[str]:
    return (
        {line.split()[0] for line in _LOG.read_text("utf-8").splitlines() if line} if _LOG.exists() else set()
    )


def pytest_configure(config: pytest.Config) -> None:
    SESSION_FILE.write_text(json.dumps({"log": str(_LOG), "arms": []}))
    failpoints.arm(SESSION_FILE)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    is_whole = [os.path.basename(each) for each in config.args] == ["tests"] and not config.getoption(
        "keyword"
    )
    missing = sorted(_ALL - _hits())
    if is_whole and exitstatus == 0 and missing:
        print(f"\nFailpoints that no test came by: {', '.join(missing)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    hits = _hits()
    terminalreporter.write_line(f"failpoints: {len(_ALL & hits)} of {len(_ALL)} were hit")


def pytest_unconfigure(config: pytest.Config) -> None:
    for path in _folder.iterdir():
        path.unlink()
    _folder.rmdir()
