"""Which segments can be joined, and where each lies in the joined file."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from roomtape.v1 import media_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.segments import SegmentRow
from roomtape_service.library.refusals import state_name
from roomtape_service.recording.containers.wav import HEADER_BYTES, WAV_BYTES_MAX
from roomtape_service.recording.positions import samples_of

__all__ = ["LONGEST_HOLE_SECONDS", "JoinPlan", "NotJoinableError", "plan_join"]

LONGEST_HOLE_SECONDS = 24 * 3600
"""Silence that one hole may become."""

_SAMPLE_BYTES = 2
_OVERLAP_NS = NANOSECONDS // 100
"""Files that pass packets through end up to a packet beside their time."""


class NotJoinableError(Exception):
    """Segments that can't be joined; the text says why. `segment_id` is that of one at fault, or -1."""

    def __init__(self, text: str, segment_id: int = -1) -> None:
        super().__init__(text)
        self.segment_id = segment_id


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """Segments in their order, and where each begins in the joined file, in samples; `samples` is where it ends."""

    segments: Sequence[SegmentRow]
    starts: Sequence[int]
    samples: int


def plan_join(rows: Sequence[SegmentRow], first: int, last: int) -> JoinPlan:
    """The plan for segments `first` to `last` out of a recording's `rows` of one container.

    Raises NotJoinableError.
    """
    by_number = {row.segment_id: row for row in rows}
    if last <= first:
        raise NotJoinableError("it takes at least two segments", first)
    segments: list[SegmentRow] = []
    for number in range(first, last + 1):
        row = by_number.get(number)
        if row is None:
            raise NotJoinableError(f"segment {number} has no file of this kind", number)
        if row.state != segment_pb2.SEGMENT_STATE_UPLOADED:
            raise NotJoinableError(f"segment {number} is {state_name(row)} and not in a store", number)
        segments.append(row)
    for before, after in pairwise(segments):
        _require_pair(before, after)
    rate, start_ns = segments[0].sample_rate, segments[0].start_ns
    starts = [samples_of(row.start_ns - start_ns, rate) for row in segments]
    samples = starts[-1] + segments[-1].sample_count
    size_bytes = HEADER_BYTES + samples * _SAMPLE_BYTES * segments[0].channels
    if segments[0].container == media_pb2.CONTAINER_WAV and size_bytes > WAV_BYTES_MAX:
        raise NotJoinableError(f"the file would have {size_bytes} bytes; WAV ends at {WAV_BYTES_MAX}")
    return JoinPlan(segments, starts, samples)


def _require_pair(before: SegmentRow, after: SegmentRow) -> None:
    form = (after.codec, after.sample_rate, after.channels)
    if form != (before.codec, before.sample_rate, before.channels):
        raise NotJoinableError(
            f"segment {after.segment_id} has {after.sample_rate} Hz and {after.channels} channels, the one before "
            f"{before.sample_rate} Hz and {before.channels}",
            after.segment_id,
        )
    assert before.end_ns is not None
    hole_ns = after.start_ns - before.end_ns
    if hole_ns > LONGEST_HOLE_SECONDS * NANOSECONDS:
        raise NotJoinableError(
            f"segment {after.segment_id} begins {hole_ns // NANOSECONDS} s after the one before ends; at most "
            f"{LONGEST_HOLE_SECONDS} s are filled with silence",
            after.segment_id,
        )
    if hole_ns < -_OVERLAP_NS:
        raise NotJoinableError(
            f"segment {after.segment_id} begins before the one before ends", after.segment_id
        )
