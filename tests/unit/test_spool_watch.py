"""Watching a spool: what is on it, which state that is, and who hears of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from roomtape_service.clock import ManualClock
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.quota import SpoolState, Watermarks
from roomtape_service.spool.watching import SpoolWatch

KIB = 1 << 10
_NOBODY = 65_534
MARKS = Watermarks(quota_bytes=1000 * KIB, warn_percent=75, refuse_percent=90, reserve_bytes=1 << 20)


class Heard:
    """Notes the changes, or fails to."""

    def __init__(self) -> None:
        self.changes: list[tuple[SpoolState, SpoolState]] = []
        self.failures = 0

    async def changed(self, before: SpoolState, after: SpoolState) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no room for it")
        self.changes.append((before, after))


def fill(spool: Path, kib: int) -> None:
    folder = spool / "01700000000000000000-0-1"
    folder.mkdir(exist_ok=True)
    (folder / LOCK_NAME).touch()
    (folder / "r-000000.journal").touch()
    (folder / "r-000000.wav").write_bytes(bytes(kib * KIB))


async def test_each_change_is_told_once(tmp_path: Path) -> None:
    heard, clock = Heard(), ManualClock()
    watch = SpoolWatch(tmp_path, MARKS, clock, heard.changed)
    ok, warning, refusing, full = SpoolState
    for kib in (10, 760, 770, 740, 910, 1000, 990, 950, 10):
        fill(tmp_path, kib)
        await watch.look()
    assert heard.changes == [
        (ok, warning),
        (warning, refusing),
        (refusing, full),
        (full, refusing),
        (refusing, ok),
    ]


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder, and the rights of everybody: root reads every folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        user = os.geteuid()
        if user == 0:
            shutil.chown(path, _NOBODY)
            os.seteuid(_NOBODY)
        try:
            yield path
        finally:
            os.seteuid(user)


async def test_a_folder_that_cannot_be_read_hides_nothing_else() -> None:
    heard = Heard()
    with as_nobody() as folder:
        watch = SpoolWatch(folder, MARKS, ManualClock(), heard.changed)
        fill(folder, 1000)
        sealed = folder / "sealed"
        sealed.mkdir(0o000)
        with pytest.raises(PermissionError):
            os.listdir(sealed)
        await watch.look()
        sealed.rmdir()
    assert heard.changes == [(SpoolState.OK, SpoolState.FULL)]


async def test_a_change_that_could_not_be_told_is_told_at_the_next_look(tmp_path: Path) -> None:
    heard = Heard()
    watch = SpoolWatch(tmp_path, MARKS, ManualClock(), heard.changed)
    heard.failures = 2
    fill(tmp_path, 1000)
    for _ in range(4):
        await watch.look()
    assert heard.changes == [(SpoolState.OK, SpoolState.FULL)]


async def test_a_disk_that_takes_nothing_is_full_for_a_while_whatever_it_says(tmp_path: Path) -> None:
    heard, clock = Heard(), ManualClock()
    watch = SpoolWatch(tmp_path, MARKS, clock, heard.changed)
    states = []
    for _ in range(2):
        watch.refused()
        for _ in range(12):
            await watch.look()
            states.append(watch.state)
            clock.advance(1)
    # 5 seconds the first time, 10 when it happens again.
    assert [state is SpoolState.FULL for state in states] == [
        *([True] * 5 + [False] * 7),
        *([True] * 10 + [False] * 2),
    ]


async def test_statistics_tell_segments_from_what_is_aside(tmp_path: Path) -> None:
    watch = SpoolWatch(tmp_path, MARKS, ManualClock(2_000_000_000_000_000_000), Heard().changed)
    fill(tmp_path, 100)
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "foreign").write_bytes(bytes(KIB))
    await watch.look()
    told = watch.statistics()
    assert (told.files, told.used_bytes, told.aside_files, told.aside_bytes) == (1, 101 * KIB, 1, KIB)
    assert told.state == "OK"
    assert told.filled_percent == 10.1
    assert told.free_bytes > 0
    assert told.oldest_unsent_seconds > 0
