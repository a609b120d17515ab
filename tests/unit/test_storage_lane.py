"""How fast an application's segments go."""

import random

import pytest

from roomtape_service.clock import NANOSECONDS
from roomtape_service.storage.lane import Lane, Way, wait_seconds
from roomtape_service.storage.store import BucketMissing, SourceDamaged, StoreError, StoreUnavailable

DOWN = StoreUnavailable("Timeout", "no answer")
REFUSED = BucketMissing("NoSuchBucket", "no bucket")
DAMAGED = SourceDamaged("SourceMissing", "gone")


@pytest.mark.parametrize(
    ("error", "failures", "least", "most"),
    [
        (DOWN, 1, 0, 0.5),
        (DOWN, 2, 0, 1),
        (DOWN, 5, 0, 8),
        (DOWN, 8, 0, 60),
        (DOWN, 10_000, 0, 60),
        (REFUSED, 1, 30, 60),
        (REFUSED, 3, 30, 240),
        (REFUSED, 10_000, 30, 300),
        (DAMAGED, 10_000, 30, 300),
    ],
)
def test_waits_are_spread_over_a_range_that_grows(
    error: StoreError, failures: int, least: float, most: float
) -> None:
    randomness = random.Random(1)
    waits = [wait_seconds(error, failures, randomness) for _ in range(1000)]
    span = most - least
    assert least <= min(waits) < least + span / 10
    assert most - span / 10 < max(waits) <= most


def test_a_healthy_lane_has_four_places() -> None:
    lane = Lane()
    assert lane.free(0) == 4
    lane.in_hand |= {"a", "b", "c"}
    assert lane.free(0) == 1
    lane.in_hand |= {"d", "e"}
    assert lane.free(0) == 0


def test_a_lane_in_trouble_waits_then_tries_one() -> None:
    lane = Lane()
    next_ns = lane.failed(DOWN, 1000, random.Random(1))
    assert lane.free(next_ns - 1) == 0
    assert lane.free(next_ns) == 1
    assert lane.parallel_parts == 1
    lane.in_hand.add("a")
    assert lane.free(next_ns) == 0
    assert not lane.is_idle
    lane.succeeded()
    assert (lane.free(next_ns), lane.parallel_parts) == (3, 4)
    lane.in_hand.clear()
    assert lane.is_idle


def test_waits_grow_until_something_goes_through() -> None:
    lane = Lane()
    longest = max(lane.failed(DOWN, 0, random.Random(n)) for n in range(20))
    assert longest > 30 * NANOSECONDS
    lane.succeeded()
    assert lane.failed(DOWN, 0, random.Random(1)) <= 0.5 * NANOSECONDS


def test_warnings_come_once_for_each_trouble_and_again_after_an_hour() -> None:
    lane = Lane()
    hour_ns = 3600 * NANOSECONDS
    assert lane.should_warn(DOWN, 0)
    assert not lane.should_warn(DOWN, hour_ns - 1)
    assert lane.should_warn(DOWN, hour_ns)
    assert lane.should_warn(REFUSED, hour_ns + 1)
    assert not lane.should_warn(REFUSED, hour_ns + 2)
    lane.succeeded()
    assert lane.should_warn(REFUSED, hour_ns + 3)


def test_files_that_grow_leave_a_place_to_complete_ones() -> None:
    lane = Lane()
    assert lane.free_for_growing(0) == 3
    lane.in_hand |= {"a", "b", "c"}
    assert (lane.free(0), lane.free_for_growing(0)) == (1, 0)
    lane.in_hand.clear()
    next_ns = lane.failed(DOWN, 0, random.Random(1))
    assert (lane.free_for_growing(next_ns - 1), lane.free_for_growing(next_ns)) == (0, 1)


def test_what_is_known_of_a_store_is_of_no_other() -> None:
    way = Way()
    way.leads_to("one")
    way.failing_ns, way.uses_second = 5, True
    assert (way.lane, way.is_idle) == (way.second, False)
    way.leads_to("one")
    assert (way.failing_ns, way.uses_second) == (5, True)
    way.leads_to("another")
    assert way.is_idle
    assert not way.uses_second
