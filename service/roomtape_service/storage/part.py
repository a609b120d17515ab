"""How a file is cut into parts. One rule for every vendor: `vendors.py` has the limits that it keeps.

1. Up to one part's size: a single put.
2. Beyond: parts of equal size, the last one smaller, numbered from 1 without gaps (COS refuses gaps); at least
   8 MiB, and large enough that there are at most 9,000 (every vendor takes 10,000).
3. While a file grows, all parts but the first are final that end `SETTLED_BYTES` before what a checkpoint holds: the
   head of a file is written again at its end (the lengths of WAV, the tag of MP3, a box of M4A, whose table is added
   behind), and so is the last page of Ogg.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "MAX_OBJECT_BYTES",
    "MAX_PARTS",
    "PART_BYTES",
    "SETTLED_BYTES",
    "Part",
    "part_bytes_for",
    "parts_of",
    "settled_parts",
]

PART_BYTES = 8 << 20
"""Above the minimum of every vendor (5 MiB), small enough to be sent again."""
MAX_PARTS = 9_000
MAX_OBJECT_BYTES = 5 << 40
"""What the strictest vendor takes as one object."""

SETTLED_BYTES = 128 << 10
"""Twice the longest page of Ogg, and more than any other container writes again at its end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file; `number` counts from 1."""

    number: int
    start: int
    length: int


def part_bytes_for(size_bytes: int, least_bytes: int = PART_BYTES) -> int:
    """The size of the parts of a file. Raises ValueError beyond 5 TiB."""
    if size_bytes > MAX_OBJECT_BYTES:
        raise ValueError(f"{size_bytes} bytes are more than an object can have ({MAX_OBJECT_BYTES})")
    return max(least_bytes, -(-size_bytes // MAX_PARTS))


def parts_of(size_bytes: int, part_bytes: int) -> Sequence[Part]:
    """The parts of a file of this size, in order."""
    return [
        Part(number, start, min(part_bytes, size_bytes - start))
        for number, start in enumerate(range(0, size_bytes, part_bytes), start=1)
    ]


def settled_parts(checkpointed_bytes: int, part_bytes: int) -> int:
    """How many parts of a file that grows are final, the first one counted although it is not."""
    return max(0, checkpointed_bytes - SETTLED_BYTES) // part_bytes
