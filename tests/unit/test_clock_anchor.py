"""UTC over processes of one machine whose clock is set."""

from pathlib import Path

from roomtape_service.clock import NANOSECONDS, ManualClock, SteadyClock
from roomtape_service.clock_anchor import ClockAnchor


def test_a_steady_clock_goes_on_exactly_where_that_is_known() -> None:
    clock = SteadyClock(ManualClock(5_000 * NANOSECONDS))
    assert clock.go_on(1_000 * NANOSECONDS, 2_000 * NANOSECONDS) == -3_000 * NANOSECONDS
    assert clock.now_ns() == 2_000 * NANOSECONDS
    assert clock.go_on(3_000 * NANOSECONDS, 2_500 * NANOSECONDS) == 1_000 * NANOSECONDS


def test_a_steady_clock_is_never_behind_what_was_reached() -> None:
    machine = ManualClock(5_000 * NANOSECONDS)
    clock = SteadyClock(machine)
    assert clock.go_on(6_000 * NANOSECONDS, None) == 1_000 * NANOSECONDS
    assert clock.go_on(5_500 * NANOSECONDS, None) == 0
    machine.advance(1)
    assert clock.now_ns() == 6_001 * NANOSECONDS


def test_an_anchor_counts_until_the_machine_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    assert ClockAnchor.read(path) is None
    ClockAnchor.keep(path, 5_000 * NANOSECONDS)
    kept = ClockAnchor.read(path)
    assert kept is None or 0 <= kept.now_ns() - 5_000 * NANOSECONDS < 60 * NANOSECONDS
    path.write_text('{"boot_id": "another", "offset_ns": 17}')
    assert ClockAnchor.read(path) is None
    for damaged in ("", "[]", "{}", '{"boot_id": 1, "offset_ns": "x"}'):
        path.write_text(damaged)
        assert ClockAnchor.read(path) is None
