"""Room time in nanoseconds to and from positions: whole samples since the room's epoch.

Both directions round to the nearest, so a position survives the way through nanoseconds at every audio rate.
"""

from roomtape_service.clock import NANOSECONDS

__all__ = ["duration_ns", "first_position", "ns_of", "position_of", "samples_of"]


def duration_ns(samples: int, rate: int) -> int:
    """How long `samples` last."""
    return (samples * NANOSECONDS + rate // 2) // rate


def samples_of(span_ns: int, rate: int) -> int:
    """How many samples fill a span, rounded to the nearest."""
    return (span_ns * rate + NANOSECONDS // 2) // NANOSECONDS


def ns_of(position: int, rate: int, epoch_ns: int) -> int:
    """Room time of a position."""
    return epoch_ns + duration_ns(position, rate)


def position_of(at_ns: int, rate: int, epoch_ns: int) -> int:
    """Position at a room time."""
    return samples_of(at_ns - epoch_ns, rate)


def first_position(at_ns: int, rate: int, epoch_ns: int) -> int:
    """The first position that is not before a room time; at the rate by which that came about, its own."""
    position = position_of(at_ns, rate, epoch_ns)
    return position if ns_of(position, rate, epoch_ns) >= at_ns else position + 1
