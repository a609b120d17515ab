"""The time between two segments of a recording, and why there is nothing in it.

1. What the manifest tells of the time explains it: a gap; that the user (for a mix: anybody whom the task took) was
   not in the room, was muted, or was not taken.
2. What is left is silence of somebody who was there, if no frame can have been in it: the sequence numbers of the
   next segment's tracks go on where those of the segments before ended, and all in between are in its counts.
3. Anything else is unexplained.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.model import Manifest, Participant, Recording, Scope, Segment, Track
from roomtape_service.manifest.spans import FOREVER_NS, Span, clipped, merged, without

__all__ = ["MIXED", "Hole", "holes_of"]

MIXED = "MIXED"
_SINGLE_MODES = frozenset({"SINGLE", "SINGLE_AND_MIXED"})
_MIXED_MODES = frozenset({"MIXED", "SINGLE_AND_MIXED"})

_SLACK_NS = 3 * NANOSECONDS
"""Media of the moment in which somebody comes or goes, on its way, lies so far beside that moment at most."""
_NO_HOLE_NS = NANOSECONDS // 1000
"""Between Opus files that follow each other less than a frame of 2.5 ms, and a sample otherwise, is rounding."""

TrackKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Hole:
    """Nothing between segment `after` and the next; times in nanoseconds since 1970 UTC of the room's clock."""

    after: int
    start_ns: int
    end_ns: int
    reasons: tuple[str, ...]
    """What explains it: `gap (…)`, `absent`, `muted`, `not taken`, `silent`."""
    unexplained: str
    """What is wrong with it; empty if it is explained."""


def holes_of(manifest: Manifest, recording: Recording) -> list[Hole]:
    """The holes of a recording, in order. Of a segment that is not finished nothing is said yet."""
    room = _Room(manifest, recording)
    known: dict[TrackKey, int] = {}
    found = []
    for before, after in pairwise(recording.segments):
        _learn(known, before)
        if before.end_ns is None or after.end_ns is None:
            continue
        if after.start_ns - before.end_ns > _NO_HOLE_NS:
            hole = (before.end_ns, after.start_ns)
            found.append(_explained(room, hole, before.segment_id, _missing(room, known, after, hole)))
    return found


def _explained(room: "_Room", hole: Span, after: int, missing: str) -> Hole:
    told = tuple(name for name, spans in room.reasons.items() if clipped(spans, hole))
    if not without(hole, room.explained):
        return Hole(after, *hole, told, "")
    if not missing:
        return Hole(after, *hole, (*told, "silent"), "")
    return Hole(after, *hole, told, missing)


def _widened(span: Span) -> Span:
    return max(0, span[0] - _SLACK_NS), min(FOREVER_NS, span[1] + _SLACK_NS)


def _missing(room: "_Room", known: Mapping[TrackKey, int], after: Segment, hole: Span) -> str:
    """What can't be ruled out to be missing before a segment; empty if nothing can be."""
    expected = 0
    for last in after.last_sequences:
        key = last.user_id, last.publish_session_id, last.track_id
        before = known.get(key)
        if before is None:
            if not room.came_in(key, hole):
                return f"what {last.user_id!r} published in it can't be told"
            before = 0
        expected += last.sequence - before
    counts = after.statistics
    lost = counts.get("lost", 0)
    here = counts.get("recorded", 0) + counts.get("rejected", 0)
    missing = max(lost, expected - here)
    return f"up to {missing} frames are missing" if missing > 0 else ""


def _learn(known: dict[TrackKey, int], segment: Segment) -> None:
    for last in segment.last_sequences:
        known[last.user_id, last.publish_session_id, last.track_id] = last.sequence


class _Room:
    """Who could be heard when, as one recording takes it."""

    def __init__(self, manifest: Manifest, recording: Recording) -> None:
        self._recording = recording
        self._is_mix = recording.kind == MIXED
        self._stays = [
            stay
            for stay in manifest.participants
            if stay.tracks and (self._is_mix or stay.user_id == recording.user_id)
        ]
        self._scopes = list(_scope_spans(manifest.scopes))
        reasons: defaultdict[str, list[Span]] = defaultdict(list)
        for reason, span in self._reasons():
            reasons[reason].append(span)
        self.reasons = {reason: merged(spans) for reason, spans in reasons.items()}
        """Spans in which nothing was to be recorded, or is known to be missing, by why."""
        self.explained = merged(_widened(span) for spans in reasons.values() for span in spans)

    def _reasons(self) -> Iterator[tuple[str, Span]]:
        for gap in self._recording.gaps:
            yield f"gap ({gap.reason})", (gap.start_ns, gap.end_ns)
        there = merged(_span(stay) for stay in self._stays)
        for span in without((0, FOREVER_NS), there):
            yield "absent", span
        heard = {stay: without(_span(stay), _muted(stay, self._is_mix)) for stay in self._stays}
        speaking = [part for parts in heard.values() for part in parts]
        for span in _difference(there, speaking):
            yield "muted", span
        taken = [
            part
            for stay, parts in heard.items()
            for span in self._taken(stay)
            for part in clipped(parts, span)
        ]
        for span in _difference(speaking, taken):
            yield "not taken", span

    def came_in(self, key: TrackKey, hole: Span) -> bool:
        """Whether the track's session began in a hole."""
        user_id, session, _ = key
        return any(
            stay.user_id == user_id
            and stay.publish_session_id == session
            and hole[0] - _SLACK_NS <= stay.join_ns <= hole[1] + _SLACK_NS
            for stay in self._stays
        )

    def _taken(self, stay: Participant) -> list[Span]:
        modes = _MIXED_MODES if self._is_mix else _SINGLE_MODES
        return [span for scope, span in self._scopes if scope.mode in modes and scope.takes(stay.user_id)]


def _span(stay: Participant) -> Span:
    return stay.join_ns, FOREVER_NS if stay.leave_ns is None else stay.leave_ns


def _muted(stay: Participant, is_mix: bool) -> list[Span]:
    """When all tracks of a stay were muted that the recording takes: a single takes the first main one."""
    tracks: Sequence[Track] = stay.tracks
    if not is_mix:
        tracks = sorted(tracks, key=lambda track: track.source != "MAIN")[:1]
    speaking = [part for track in tracks for part in without(_span(stay), _mutes(track))]
    return without(_span(stay), merged(speaking))


def _mutes(track: Track) -> list[Span]:
    return [(mute.start_ns, FOREVER_NS if mute.end_ns is None else mute.end_ns) for mute in track.mutes]


def _scope_spans(scopes: Sequence[Scope]) -> Iterator[tuple[Scope, Span]]:
    starts = [scope.start_ns or 0 for scope in scopes]
    ends = [*starts[1:], FOREVER_NS]
    yield from zip(scopes, zip(starts, ends, strict=True), strict=True)


def _difference(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    known = merged(others)
    return [part for span in merged(spans) for part in without(span, known)]
