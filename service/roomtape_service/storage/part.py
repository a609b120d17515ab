"""How a file is cut into parts. One rule for every vendor: `vendors.py` has the limits that it keeps.

1. Up to one part's size: a single put.
2. Beyond: parts of equal size, the last one smaller, numbered from 1 without gaps (COS refuses gaps); at least
   8 MiB, and large enough that there are at most 9,000 (every vendor takes 10,000).
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MAX_OBJECT_BYTES", "MAX_PARTS", "PART_BYTES", "Part", "parts_of"]

PART_BYTES = 8 << 20
"""Above the minimum of every vendor (5 MiB), small enough to be sent again."""
MAX_PARTS = 9_000
MAX_OBJECT_BYTES = 5 << 40
"""What the strictest vendor takes as one object."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file; `number` counts from 1."""

    number: int
    start: int
    length: int


def parts_of(size_bytes: int) -> Sequence[Part]:
    """The parts of a file of this size; empty when it goes in a single put. Raises ValueError beyond 5 TiB."""
    if size_bytes > MAX_OBJECT_BYTES:
        raise ValueError(f"{size_bytes} bytes are more than an object can have ({MAX_OBJECT_BYTES})")
    if size_bytes <= PART_BYTES:
        return ()
    length = max(PART_BYTES, -(-size_bytes // MAX_PARTS))
    return [
        Part(number, start, min(length, size_bytes - start))
        for number, start in enumerate(range(0, size_bytes, length), start=1)
    ]
