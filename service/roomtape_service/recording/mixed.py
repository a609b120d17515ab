"""The mix of a room: everybody who is taken, added up where their tracks lie in the room's time.

A mix is written up to where all the tracks that it waits for are final. It waits for a publisher who is lost or says
nothing for some seconds only; what comes of them afterwards is too late, and told as missing.
"""

from typing import Final

from roomtape_service.recording.containers.table import MIX_CODEC
from roomtape_service.recording.decoding import SAMPLE_BYTES
from roomtape_service.recording.delivery import Delivery
from roomtape_service.recording.limiter import GRID
from roomtape_service.recording.marks import Format
from roomtape_service.recording.mixing import Mixer, Voice
from roomtape_service.recording.positions import position_of, samples_of
from roomtape_service.recording.presence import Presence
from roomtape_service.recording.protocol import RecordingStart, RoomOpen
from roomtape_service.recording.recording import FILL_NS, Recording
from roomtape_service.recording.resampling import MIX_RATE
from roomtape_service.recording.series import SeriesServices
from roomtape_service.recording.track import Lane
from roomtape_service.recording.voices import PATIENCE_NS, MixInput

__all__ = ["MixedRecording"]

_WAITING_SAMPLES_MAX: Final = 32 << 20
"""With so many samples that wait to be mixed, 64 MiB, memory counts as short."""
_BLOCK_SAMPLES: Final = MIX_RATE
"""What is summed at once: memory stays small when a room is faster than real time."""
_FORMAT = Format(MIX_CODEC, MIX_RATE, 1)


class MixedRecording(Recording):
    """Mixes any number of lanes at 48 kHz, mono."""

    def __init__(self, order: RecordingStart, room: RoomOpen, services: SeriesServices) -> None:
        super().__init__(order, room, services, cuts_anywhere=True)
        self._mixer = Mixer()
        self._inputs: list[MixInput] = []
        self._expected = set(order.expected)
        self._expected_until_ns: int | None = None
        self._idle_since_ns: int | None = None
        self._presence = Presence()
        self._has_mixed = False
        self._resumes_at: int | None = None
        self._floor = position_of(order.from_ns, MIX_RATE, room.epoch_ns)
        if order.position_ns is not None:
            self._resumes_at = self._floor = position_of(order.position_ns, MIX_RATE, room.epoch_ns)

    @property
    def needs_pcm(self) -> bool:
        return not self.is_ending

    def attach(self, lane: Lane) -> None:
        super().attach(lane)
        if self.order.position_ns is not None and not self._has_mixed:
            end = position_of(self.order.position_ns, lane.format.rate, self.room.epoch_ns)
            lane.timeline.begin_near(end, self.series.safe.get(lane.facts.key, 0))
        self._inputs.append(MixInput(lane))

    def lose(self, lane: Lane, now_ns: int) -> None:
        self._input(lane).lost_since_ns = now_ns

    def find(self, lane: Lane) -> None:
        self._input(lane).returns()

    def holds(self, key: str) -> bool:
        return super().holds(key) or any(each.holds(key) for each in self._inputs)

    def _input(self, lane: Lane) -> MixInput:
        return next(each for each in self._inputs if each.lane is lane and not each.is_leaving)

    def _take(self, lane: Lane, delivery: Delivery) -> None:
        each = self._input(lane)
        key = lane.facts.key
        each.take(delivery, self.series.safe.get(key, 0), self._floor, is_mixed=self._has_mixed)
        if delivery.pieces or delivery.frontier is not None:
            self._expected.discard(key)
        if each.frontier is not None:
            self._presence.reach(each, each.frontier, broke=delivery.step_ns > self._pause_ns)
        self.series.count(
            duplicated=delivery.duplicated,
            reordered=delivery.reordered,
            rejected=each.rejected,
            late=delivery.late,
        )
        each.rejected = 0
        missing = delivery.missing if each.late is None else (*delivery.missing, each.late)
        for span in missing:
            self._report_missing(lane, span)

    def _leave(self, lane: Lane, until: int | None) -> None:
        each = self._input(lane)
        known = self._floor if each.frontier is None else each.frontier
        end = None if until is None else until * MIX_RATE // lane.format.rate
        if end is not None and end - known > samples_of(FILL_NS, MIX_RATE):
            # As in the user's own file: silence that nobody vouched for is not written for hours.
            end = None
        each.leave(end, self._floor)
        if each.frontier is not None:
            self._presence.reach(each, each.frontier, broke=False)
        self._presence.leave(each)

    def _mute(self, lane: Lane, position: int) -> None:
        """Silence in the mix is what nobody says anyway."""

    def _tick(self, now_ns: int) -> None:
        is_memory_short = sum(each.voice.size for each in self._inputs) > _WAITING_SAMPLES_MAX
        for each in self._inputs:
            each.pass_time(now_ns, is_memory_short=is_memory_short)
        if not self._waits_for_expected(now_ns):
            self._mix_final()
        self._inputs = [each for each in self._inputs if not each.is_spent]
        self._end_if_idle(now_ns)
        self.series.checkpoint()

    def _finish(self, at_ns: int | None) -> None:
        if self.goes_on_elsewhere or at_ns is None:
            # It has there what is not final here.
            if not self._expected:
                self._mix_final()
            self._inputs.clear()
            self.series.end()
            return
        marks = [lane.timeline.watermark() for lane in self.lanes]
        rates = [lane.format.rate for lane in self.lanes]
        known = [mark * MIX_RATE // rate for mark, rate in zip(marks, rates, strict=True) if mark is not None]
        until = min(position_of(at_ns, MIX_RATE, self.room.epoch_ns), max(known, default=self._floor))
        for each in self._inputs:
            each.leave(None, self._floor)
        self._mix_all(until)
        self.series.end()

    def _waits_for_expected(self, now_ns: int) -> bool:
        if self._expected_until_ns is None:
            self._expected_until_ns = now_ns + PATIENCE_NS
        return bool(self._expected) and now_ns < self._expected_until_ns

    def _end_if_idle(self, now_ns: int) -> None:
        if any(each.lost_since_ns is None and not each.is_leaving for each in self._inputs):
            self._idle_since_ns = None
            return
        if self._idle_since_ns is None:
            self._idle_since_ns = now_ns
        if now_ns - self._idle_since_ns >= self.order.break_wait_ns and self.series.is_open:
            self._mix_all()
            self.series.end()

    def _mix_final(self) -> None:
        """Mixes up to where everybody is final who is waited for."""
        awaited = [each for each in self._inputs if each.is_awaited]
        if awaited:
            ends = (self._floor if each.frontier is None else each.frontier for each in awaited)
            self._mix(min(ends), is_end=False)
            return
        self._mix_all()
        if any(each.is_leaving for each in self._inputs) or not self.lanes:
            self.series.settle()

    def _mix_all(self, until: int | None = None) -> None:
        """Nobody is waited for: mixes all that came, and the silence that was promised."""
        ends = [each.voice.end for each in self._inputs if each.voice.start is not None]
        ends += [each.frontier for each in self._inputs if each.frontier is not None]
        self._mix(max([*ends, self._floor if until is None else until]), is_end=True)

    def _mix(self, limit: int, *, is_end: bool) -> None:
        """Mixes up to `limit`, where everybody is final; a step less if the limiter has to look ahead."""
        series = self.series
        voices = [each.voice for each in self._inputs]
        end = limit if is_end else (limit - GRID) // GRID * GRID
        while series.is_open or self._begin(voices, end):
            position = series.position
            if position >= end:
                break
            start = min((each.start for each in voices if each.start is not None), default=end)
            if start > position:
                stop = min(start, end)
                self._mixer.rest(stop - position)
                if self._is_break(position, stop):
                    series.end()
                    continue
                series.add_silence(stop)
            else:
                stop = min(end, position + min(series.left, _BLOCK_SAMPLES))
                pcm = self._mixer.mix(voices, position, stop, limit)
                series.add_pcm(pcm, len(pcm) // SAMPLE_BYTES)
            self._floor = stop
            self._pass_marks()
        self._pass_marks()

    def _begin(self, voices: list[Voice], end: int) -> bool:
        """Opens a segment where the first voice begins, or where the one before was cut off; False if none does."""
        first = min((each.start for each in voices if each.start is not None), default=None)
        if first is None or first >= end:
            return False
        resumed = self._resumes_at
        if resumed is not None and 0 <= first - resumed <= samples_of(self.order.break_wait_ns, MIX_RATE):
            first = resumed
        self._resumes_at = None
        self.series.begin(first, _FORMAT)
        self._has_mixed = True
        return True

    def _is_break(self, start: int, end: int) -> bool:
        """Whether so much silence is a break: long, and nobody was there to say that it is silence."""
        wait = samples_of(self._pause_ns, MIX_RATE)
        if end - start <= wait:
            return False
        self._presence.forget_before(start)
        return self._presence.absent(start, end) > wait

    def _pass_marks(self) -> None:
        position = self.series.position if self.series.is_open else self._floor
        marks = [mark for each in self._inputs for mark in each.marks_before(position)]
        for mark in sorted(marks, key=lambda mark: mark.end):
            self.series.mark(mark)
