"""Who was recorded when, as bars of text."""

from collections.abc import Sequence

from rich.text import Text

from roomtape.v1 import segment_pb2

__all__ = ["style_of", "timeline"]

# With names and times it fits into 80 columns.
BAR_COLUMNS = 46
STYLES = ("cyan", "magenta", "green", "yellow", "blue")

_MIX_STYLE = "white"
_RECORDED, _NOTHING = "█", "·"


def style_of(user_id: str, users: Sequence[str]) -> str:
    """The colour of a user; that of the mix for everyone else."""
    return STYLES[users.index(user_id) % len(STYLES)] if user_id in users else _MIX_STYLE


def timeline(segments: Sequence[segment_pb2.Segment], users: Sequence[str]) -> Text:
    """A bar for each user and one for the mix, over the time from the first sample to the last."""
    start_ns = min(segment.start_time.ToNanoseconds() for segment in segments)
    end_ns = max(segment.end_time.ToNanoseconds() for segment in segments)
    column_ns = max(1, end_ns - start_ns) / BAR_COLUMNS
    names = [*users, "the mix"]
    text = Text()
    for name in names:
        spans = [
            (segment.start_time.ToNanoseconds() - start_ns, segment.end_time.ToNanoseconds() - start_ns)
            for segment in segments
            if (segment.user_id or "the mix") == name
        ]
        middles = ((column + 0.5) * column_ns for column in range(BAR_COLUMNS))
        bar = "".join(
            _RECORDED if any(begin <= middle < end for begin, end in spans) else _NOTHING
            for middle in middles
        )
        times = ", ".join(f"{begin / 1e9:.2f} – {end / 1e9:.2f} s" for begin, end in sorted(set(spans)))
        text.append(f"  {name:<{max(map(len, names))}}  ")
        text.append(bar, style_of(name, users))
        text.append(f"  {times}\n")
    return text
