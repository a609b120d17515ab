"""One track as an input of a mix."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.delivery import Delivery, MissingMedia, Piece, Run
from roomtape_service.recording.marks import Mark
from roomtape_service.recording.mixing import Voice
from roomtape_service.recording.protocol import GapReason, RoomClock
from roomtape_service.recording.resampling import MIX_RATE, MonoStream
from roomtape_service.recording.track import Lane

__all__ = ["PATIENCE_NS", "MixInput"]

PATIENCE_NS: Final = 20 * NANOSECONDS
"""How long a mix waits for a publisher whose connection broke, or who sends nothing; what comes later is not in it.
Long enough to come back after a crash; and of what comes from the others meanwhile, and can't be acknowledged, clients
and nodes hold as much: 4 MiB, which are 21 s of PCM with two channels."""
_SHORT_PATIENCE_NS: Final = {RoomClock.ARRIVAL: 3 * NANOSECONDS, RoomClock.MEDIA: 10 * NANOSECONDS}
"""The same where memory is short; publishers send twice a second."""


class MixInput:
    """Takes what a lane delivers, and keeps it until it is mixed. Positions are the mix's."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.voice = Voice()
        self.frontier: int | None = None
        """Up to where the track is final; None before anything is known of it."""
        self.is_leaving = False
        """Whether nothing more will come."""
        self.lost_since_ns: int | None = None
        self.rejected = 0
        """Frames that could not be decoded or came too late, since the last `take_rejected`."""
        self.late: MissingMedia | None = None
        """What came too late in the last delivery, in positions of the track."""
        self._key = lane.facts.key
        self._rate = lane.format.rate
        self._stream = MonoStream(lane.format.rate, lane.format.channels)
        self._marks: deque[Mark] = deque()
        self._end: int | None = None
        """After the last sample that came, in positions of the track."""
        self._has_news = True
        self._heard_ns = 0
        self._is_in_time = True

    @property
    def is_spent(self) -> bool:
        """Whether all that came is in the mix, and nothing will come."""
        return self.is_leaving and self.voice.start is None and not self._marks

    def take(self, delivery: Delivery, known: int, floor: int, *, is_mixed: bool) -> None:
        """Takes frames after sequence `known`; what lies before `floor` is mixed already, or was never wanted."""
        self._has_news = True
        self.late = None
        parts: list[bytes] = []
        start = 0
        for piece in self._pieces(delivery.pieces, known, floor):
            if isinstance(piece, Run):
                if parts and piece.position != self._end:
                    self._add(start, parts, floor)
                    parts = []
                if not parts:
                    start = piece.position
                parts.append(piece.pcm)
                self._end = piece.position + piece.samples
                self._marks.append(self._run_mark(piece, self._end))
                continue
            if piece.sequence <= known:
                continue
            if piece.samples:
                if parts and piece.position != self._end:
                    self._add(start, parts, floor)
                    parts = []
                if not parts:
                    start = piece.position
                parts.append(piece.pcm)
                self._end = piece.position + piece.samples
            lost = min(piece.lost, piece.sequence - known - 1)
            self._marks.append(self._mark(piece, floor, lost, is_mixed))
        if parts:
            self._add(start, parts, floor)
        if delivery.frontier is None:
            return
        if self._end is not None and delivery.frontier > self._end:
            self._end_run(floor)
        held = self._stream.held_from
        frontier = self._stream.position_of(delivery.frontier)
        self.frontier = frontier if held is None else min(frontier, held)

    def leave(self, until: int | None, floor: int) -> None:
        """Nothing more will come; silence follows to `until`."""
        self._end_run(floor)
        self.is_leaving = True
        if until is not None:
            self.frontier = max(until, self.frontier or until)
        if self._marks:
            # Between rates the end of a frame lies between two samples: the mix goes to the later one.
            end = self._marks[-1].end
            self.frontier = max(end, self.frontier or end)

    def marks_before(self, position: int) -> list[Mark]:
        """Removes and returns the marks of what is mixed up to a position."""
        marks: list[Mark] = []
        waiting = self._marks
        while waiting and waiting[0].end <= position:
            marks.append(waiting.popleft())
        if waiting and waiting[0].first_end <= position:
            head, waiting[0] = waiting[0].split(position)
            marks.append(head)
        return marks

    def holds(self, key: str) -> bool:
        """Whether a frame of the track waits to be mixed."""
        return any(mark.key == key for mark in self._marks)

    @property
    def is_awaited(self) -> bool:
        """Whether the mix should not go on without it."""
        return self._is_in_time and not self.is_leaving

    def pass_time(self, now_ns: int, *, is_memory_short: bool) -> None:
        """It is `now_ns` by the monotonic clock."""
        if self._has_news:
            self._heard_ns = now_ns
            self._has_news = False
        since_ns = self._heard_ns if self.lost_since_ns is None else self.lost_since_ns
        patience_ns = _SHORT_PATIENCE_NS[self.lane.room.clock] if is_memory_short else PATIENCE_NS
        self._is_in_time = now_ns - since_ns < patience_ns

    def returns(self) -> None:
        """The publisher is back."""
        self.lost_since_ns = None
        self._has_news = True

    def _pieces(self, pieces: Sequence[Piece | Run], known: int, floor: int) -> Iterator[Piece | Run]:
        """Runs as they are where all of their frames are wanted and in their places in the mix, else one by one."""
        for piece in pieces:
            if isinstance(piece, Piece):
                yield piece
                continue
            last = self._marks[-1].end if self._marks else floor
            first_end = piece.position + piece.size
            if self._rate == MIX_RATE and piece.sequence > known and floor < first_end >= last:
                yield piece
            else:
                yield from piece.pieces()

    def _run_mark(self, run: Run, end: int) -> Mark:
        *earlier, end_media_ns = run.ends_media_ns
        return Mark(
            end=end,
            free_from=0,
            key=self._key,
            sequence=run.last_sequence,
            track_end=end,
            track_rate=self._rate,
            end_media_ns=end_media_ns,
            recorded=len(run.packets),
            earlier=earlier,
            size=run.size,
        )

    def _mark(self, piece: Piece, floor: int, lost: int, is_mixed: bool) -> Mark:
        rate = self._rate
        track_end = piece.position + piece.samples
        end = track_end if rate == MIX_RATE else -(-track_end * MIX_RATE // rate)
        recorded = 1
        if end <= floor or piece.packet is None:
            is_late = is_mixed and end <= floor and piece.samples > 0
            if is_late:
                start = self.late.start if self.late is not None else piece.position
                self.late = MissingMedia(start, track_end, GapReason.PUBLISHER_LOST)
            if is_late or piece.packet is None:
                self.rejected += 1
            recorded = 0
        last = self._marks[-1].end if self._marks else floor
        if end < last:
            end = last
        return Mark(end, 0, self._key, piece.sequence, track_end, rate, piece.end_media_ns, recorded, lost)

    def _add(self, position: int, parts: list[bytes], floor: int) -> None:
        pcm = parts[0] if len(parts) == 1 else b"".join(parts)
        for at, samples in self._stream.push(position, pcm):
            self.voice.add(at, samples, floor)

    def _end_run(self, floor: int) -> None:
        for at, samples in self._stream.end_run():
            self.voice.add(at, samples, floor)
