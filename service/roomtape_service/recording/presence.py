"""When somebody was there: what is silent then was said to be silent, and is no break.

Positions are samples of any one rate.
"""

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Presence"]


@dataclass(slots=True)
class _Span:
    start: int
    end: int


class Presence:
    """Spans in which any of several publishers told how far they are."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []
        self._open: dict[Hashable, _Span] = {}

    def reach(self, who: Hashable, position: int, *, broke: bool) -> None:
        """`who` has said everything up to a position; `broke`: but nothing since they spoke last."""
        span = self._open.get(who)
        if span is None or broke:
            span = self._open[who] = _Span(position, position)
            self._spans.append(span)
        span.end = max(span.end, position)

    def leave(self, who: Hashable) -> None:
        """`who` says nothing more."""
        self._open.pop(who, None)

    def absent(self, start: int, end: int) -> int:
        """For how many samples between two positions nobody was there."""
        missing, position = 0, start
        for span in sorted(self._spans, key=lambda span: span.start):
            if span.start >= end:
                break
            missing += max(0, span.start - position)
            position = max(position, span.end)
        return missing + max(0, end - position)

    def forget_before(self, position: int) -> None:
        """Nobody will ask for what lies before a position."""
        still_open = {id(span) for span in self._open.values()}
        self._spans = [span for span in self._spans if span.end > position or id(span) in still_open]
