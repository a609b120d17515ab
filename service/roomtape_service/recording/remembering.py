"""Which of its tracks a recording remembers: those that moved on last.

Who left without having heard that all is safe comes again and sends again what is written already. That is soon or
never, while a room may see thousands of passers-by in a day.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

__all__ = ["REMEMBERED_TRACKS", "remember"]

REMEMBERED_TRACKS: Final = 512
"""More than are in a room at once; with each about 100 bytes in the head of every segment's journal."""

T = TypeVar("T")


def remember(known: dict[str, T], news: Mapping[str, T]) -> None:
    """Adds what is new by track key, and forgets what did not change for the longest."""
    for key, value in news.items():
        known.pop(key, None)
        known[key] = value
    while len(known) > REMEMBERED_TRACKS:
        del known[next(iter(known))]
