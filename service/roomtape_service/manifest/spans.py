"""Spans of time: pairs of nanoseconds, the first in it and the last not."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeAlias

__all__ = ["FOREVER_NS", "Span", "clipped", "merged", "without"]

Span: TypeAlias = tuple[int, int]

FOREVER_NS = 2**63 - 1


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time as spans that don't touch, in order; empty ones are left out."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def clipped(spans: Sequence[Span], within: Span) -> list[Span]:
    """What of spans, as `merged` gives them, lies within another."""
    start, end = within
    first = max(0, bisect_right(spans, (start, end)) - 1)
    found: list[Span] = []
    for each in islice(spans, first, None):
        if each[0] >= end:
            break
        if each[1] > start:
            found.append((max(start, each[0]), min(end, each[1])))
    return found


def without(within: Span, spans: Sequence[Span]) -> list[Span]:
    """What of one span lies in none of others, which are as `merged` gives them."""
    rest: list[Span] = []
    at, end = within
    for start, stop in clipped(spans, within):
        if start > at:
            rest.append((at, start))
        at = stop
    if at < end:
        rest.append((at, end))
    return rest
