"""When deliveries are tried again."""

import random
from itertools import pairwise

import pytest

from roomtape.v1 import webhook_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.webhooks.schedule import OURS, TRTC, TRTC_CLASSIC, VOLCENGINE, Schedule, schedule_of

START_NS = 1_700_000_000 * NANOSECONDS


class Highest(random.Random):
    """Dice that always fall on the most."""

    def uniform(self, a: float, b: float) -> float:
        return b


def attempts(schedule: Schedule, dice: random.Random, attempt_seconds: float = 0.0) -> list[float]:
    """The seconds at which attempts begin that all fail."""
    now_ns: int | None = START_NS
    began = []
    while now_ns is not None:
        began.append((now_ns - START_NS) / NANOSECONDS)
        now_ns = schedule.next_ns(len(began), START_NS, now_ns + round(attempt_seconds * NANOSECONDS), dice)
    return began


def test_our_waits_double_from_a_second_to_ten_minutes_and_end_with_the_day() -> None:
    began = attempts(OURS, Highest())
    waits = [after - before for before, after in pairwise(began)]
    assert waits[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]
    assert set(waits[11:-1]) == {600}
    assert began[-1] == 24 * 3600


@pytest.mark.parametrize("seed", range(20))
def test_our_waits_are_random_and_the_last_attempt_is_made_when_the_day_ends(seed: int) -> None:
    began = attempts(OURS, random.Random(seed), attempt_seconds=0.5)
    waits = [after - before - 0.5 for before, after in pairwise(began)]
    assert all(0 <= wait <= min(2**doublings, 600) for doublings, wait in enumerate(waits))
    assert len(set(waits)) > len(waits) // 2
    assert began[-1] == 24 * 3600


def test_what_waited_for_longer_than_a_day_is_given_up_after_one_attempt() -> None:
    assert OURS.next_ns(1, START_NS, START_NS + 90_000 * NANOSECONDS, Highest()) is None
    assert TRTC.next_ns(1, START_NS, START_NS + 90_000 * NANOSECONDS, Highest()) is None


def test_a_receiver_gets_the_rest_that_it_asks_for_within_bounds() -> None:
    dice = random.Random(1)
    for asked, given in ((30.0, 30), (7200.0, 600), (-5.0, 0)):
        next_ns = OURS.next_ns(1, START_NS, START_NS, dice, rest_seconds=asked)
        assert next_ns is not None
        assert given <= (next_ns - START_NS) / NANOSECONDS <= given + 1
    assert TRTC.next_ns(2, START_NS, START_NS, dice, rest_seconds=30) == START_NS + 10 * NANOSECONDS


def test_the_vendors_schedules() -> None:
    dice = Highest()
    assert attempts(TRTC, dice) == [0, 0, 10, 20, 30, 40, 50, 60]
    assert attempts(TRTC, dice, attempt_seconds=5) == [0, 5, 20, 35, 50]
    assert attempts(TRTC_CLASSIC, dice) == [60 * number for number in range(13)]
    assert attempts(VOLCENGINE, dice) == [0, 1, 2]
    assert [each.timeout_seconds for each in (OURS, TRTC, TRTC_CLASSIC, VOLCENGINE)] == [10, 5, 20, 5]


def test_what_counts_as_taken() -> None:
    statuses = (100, 199, 200, 201, 204, 299, 300, 304, 400, 410, 429, 500)
    assert [status for status in statuses if OURS.takes(status)] == [200, 201, 204, 299]
    assert [status for status in statuses if TRTC.takes(status)] == [200]


def test_the_vendors_schedule_only_where_it_is_asked_for() -> None:
    vendor = webhook_pb2.WEBHOOK_RETRY_VENDOR
    ours = webhook_pb2.WEBHOOK_RETRY_ROOMTAPE
    assert schedule_of(vendor, webhook_pb2.WEBHOOK_FORMAT_TRTC) is TRTC
    assert schedule_of(vendor, webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC) is TRTC_CLASSIC
    assert schedule_of(vendor, webhook_pb2.WEBHOOK_FORMAT_VOLC) is VOLCENGINE
    assert schedule_of(vendor, webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE) is OURS
    assert schedule_of(ours, webhook_pb2.WEBHOOK_FORMAT_TRTC) is OURS
