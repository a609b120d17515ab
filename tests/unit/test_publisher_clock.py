"""Where a publisher's clock stands against the server's."""

from roomtape_service.clock import NANOSECONDS
from roomtape_service.ingest.publisher_clock import PublisherClock

MS = 1_000_000
AHEAD = 3600 * NANOSECONDS


def test_the_smallest_delay_maps_a_late_message_to_when_it_was_sent() -> None:
    clock = PublisherClock()
    for second, delay in ((0, 40 * MS), (1, 2 * MS), (2, 300 * MS)):
        sent = second * NANOSECONDS + AHEAD
        clock.observe(sent, second * NANOSECONDS + delay)
    assert clock.server_ns(3 * NANOSECONDS + AHEAD, 5 * NANOSECONDS) == 3 * NANOSECONDS + 2 * MS


def test_a_clock_that_drifts_is_followed() -> None:
    clock = PublisherClock()
    for second in range(600):
        clock.observe(second * NANOSECONDS, second * NANOSECONDS + second * 100_000)
    mapped = clock.server_ns(600 * NANOSECONDS, 601 * NANOSECONDS)
    assert abs(mapped - 600 * NANOSECONDS - 60 * MS) <= 2 * MS


def test_nothing_is_later_than_its_arrival() -> None:
    clock = PublisherClock()
    assert clock.server_ns(5 * NANOSECONDS, 3 * NANOSECONDS) == 3 * NANOSECONDS
    clock.observe(NANOSECONDS, 2 * NANOSECONDS)
    assert clock.server_ns(5 * NANOSECONDS, 3 * NANOSECONDS) == 3 * NANOSECONDS
