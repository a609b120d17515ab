"""How full the spool is, and what follows from it."""

from pathlib import Path

import pytest

from roomtape_service.clock import ManualClock
from roomtape_service.spool.quota import SpoolState, SpoolUse, Watermarks, decide, filled_percent
from roomtape_service.spool.watching import SpoolWatch

MIB = 1 << 20
GIB = 1 << 30

OF_DISK = Watermarks(quota_bytes=0, warn_percent=75, refuse_percent=90, reserve_bytes=64 * MIB)
OF_QUOTA = Watermarks(quota_bytes=1000 * MIB, warn_percent=75, refuse_percent=90, reserve_bytes=64 * MIB)


@pytest.mark.parametrize(
    ("marks", "used", "free", "expected"),
    [
        (OF_DISK, 0, 40 * GIB, SpoolState.OK),
        (OF_DISK, 700 * MIB, 364 * MIB, SpoolState.OK),
        (OF_DISK, 760 * MIB, 304 * MIB, SpoolState.WARNING),
        (OF_DISK, 910 * MIB, 154 * MIB, SpoolState.REFUSING),
        (OF_DISK, 1000 * MIB, 64 * MIB, SpoolState.FULL),
        # Others fill the disk.
        (OF_DISK, 0, 255 * MIB, SpoolState.WARNING),
        (OF_DISK, 0, 127 * MIB, SpoolState.REFUSING),
        (OF_DISK, 0, 63 * MIB, SpoolState.FULL),
        (OF_DISK, 0, 0, SpoolState.FULL),
        (OF_QUOTA, 749 * MIB, 40 * GIB, SpoolState.OK),
        (OF_QUOTA, 751 * MIB, 40 * GIB, SpoolState.WARNING),
        (OF_QUOTA, 901 * MIB, 40 * GIB, SpoolState.REFUSING),
        (OF_QUOTA, 1000 * MIB, 40 * GIB, SpoolState.FULL),
        (OF_QUOTA, 100 * MIB, 64 * MIB, SpoolState.FULL),
    ],
)
def test_each_watermark_is_entered_at_once(
    marks: Watermarks, used: int, free: int, expected: SpoolState
) -> None:
    assert decide(SpoolState.OK, SpoolUse(used, free), marks) is expected


@pytest.mark.parametrize(
    ("before", "used", "free", "expected"),
    [
        (SpoolState.FULL, 990 * MIB, 40 * GIB, SpoolState.FULL),
        (SpoolState.FULL, 960 * MIB, 40 * GIB, SpoolState.REFUSING),
        (SpoolState.FULL, 1 * MIB, 70 * MIB, SpoolState.FULL),
        (SpoolState.FULL, 1 * MIB, 100 * MIB, SpoolState.REFUSING),
        (SpoolState.REFUSING, 880 * MIB, 40 * GIB, SpoolState.REFUSING),
        (SpoolState.REFUSING, 860 * MIB, 40 * GIB, SpoolState.WARNING),
        (SpoolState.WARNING, 730 * MIB, 40 * GIB, SpoolState.WARNING),
        (SpoolState.WARNING, 700 * MIB, 40 * GIB, SpoolState.OK),
        (SpoolState.FULL, 0, 40 * GIB, SpoolState.OK),
    ],
)
def test_a_watermark_is_left_only_well_below_it(
    before: SpoolState, used: int, free: int, expected: SpoolState
) -> None:
    assert decide(before, SpoolUse(used, free), OF_QUOTA) is expected


def test_a_spool_without_room_counts_as_full() -> None:
    assert filled_percent(SpoolUse(0, 0), OF_DISK) == 100.0
    assert filled_percent(SpoolUse(100 * MIB, 164 * MIB), OF_DISK) == 50.0


async def test_room_is_what_leaves_tasks_theirs(tmp_path: Path) -> None:
    async def changed(before: SpoolState, after: SpoolState) -> None:
        """Nobody is told."""

    marks = Watermarks(quota_bytes=10 * MIB, warn_percent=75, refuse_percent=90, reserve_bytes=1)
    watch = SpoolWatch(tmp_path, marks, ManualClock(), changed)
    assert not watch.has_room(0), "nothing is known yet"
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "file").write_bytes(bytes(4 * MIB))
    await watch.look()
    assert watch.has_room(4 * MIB)
    assert not watch.has_room(6 * MIB)
