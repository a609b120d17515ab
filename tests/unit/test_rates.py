"""Token buckets: the rate, the burst, and that applications do not share."""

import pytest

from roomtape_service.clock import ManualClock
from roomtape_service.errors import Refusal
from roomtape_service.rpc import rates
from roomtape_service.rpc.rates import RateLimit


def test_a_burst_then_the_rate() -> None:
    clock = ManualClock()
    limit = RateLimit(20, 5, clock)
    for _ in range(5):
        limit.take("one")
    with pytest.raises(Refusal) as caught:
        limit.take("one")
    assert caught.value.retry_after_seconds == pytest.approx(0.05)
    assert caught.value.metadata["appId"] == "one"
    limit.take("two")

    taken = 0
    for _ in range(1000):
        clock.advance(0.01)
        try:
            limit.take("one")
            taken += 1
        except Refusal:
            pass
    assert taken == 200


def test_a_long_pause_fills_no_more_than_the_burst() -> None:
    clock = ManualClock()
    limit = RateLimit(20, 2, clock)
    limit.take("one")
    clock.advance(3600)
    limit.take("one")
    limit.take("one")
    with pytest.raises(Refusal):
        limit.take("one")


def test_ids_that_nobody_uses_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_BUCKETS", 2)
    limit = RateLimit(1, 1, ManualClock())
    for app_id in ("one", "two", "three"):
        limit.take(app_id)
    with pytest.raises(Refusal):
        limit.take("three")
    limit.take("one")
