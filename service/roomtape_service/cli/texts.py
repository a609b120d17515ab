"""Times, spans and sizes as people read them."""

import re
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import segment_pb2

__all__ = ["read_span", "read_time", "segment_numbers", "show_clock", "show_size", "show_span", "show_time"]

NANOSECONDS = 1_000_000_000
_MILLISECOND_NS = 1_000_000

_UNITS_NS = {"ms": _MILLISECOND_NS, "s": NANOSECONDS, "m": 60 * NANOSECONDS, "h": 3600 * NANOSECONDS}
_UNITS_NS |= {"d": 24 * _UNITS_NS["h"], "": NANOSECONDS}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")

_SIZE_STEP = 1024


def show_time(time: Timestamp) -> str:
    """Date and time of this machine's zone, to the millisecond; nothing for a time that is not set."""
    return _local(time).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if time.ByteSize() else ""


def show_clock(time: Timestamp) -> str:
    """The time of day in this machine's zone, to the millisecond."""
    return _local(time).strftime("%H:%M:%S.%f")[:-3]


def show_span(span_ns: int) -> str:
    """Such as `8.460 s`, `12:05.3` or `1:00:00.0`."""
    seconds = span_ns / NANOSECONDS
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def show_size(size_bytes: int) -> str:
    """Such as `512 B` or `1.4 MiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < _SIZE_STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _SIZE_STEP
    return f"{size:.1f} GiB"


def segment_numbers(segment: segment_pb2.Segment) -> str:
    """The number of a segment, such as `3`, or of those that a file was joined of: `0-7`."""
    first, count = segment.segment_id, segment.joined_segments
    return f"{first}-{first + count - 1}" if count else str(first)


def read_span(text: str) -> Duration:
    """A span such as `90`, `90s`, `1.5h`, `250ms` or `7d`. Raises ValueError."""
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no span; write 90s, 15m, 1.5h or 7d")
    span = Duration()
    span.FromNanoseconds(round(float(found[1]) * _UNITS_NS[found[2]]))
    return span


def read_time(text: str) -> Timestamp:
    """A time in ISO 8601; without an offset it is of this machine's zone. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 2026-01-31T12:00 or 2026-01-31T12:00:00Z") from None
    time = Timestamp()
    time.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return time


def _local(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC).astimezone()
