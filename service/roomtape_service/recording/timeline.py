"""Where each frame of a track lies in its room, to the sample.

Frames that follow each other in media time follow each other in the file, sample for sample, whatever the clocks say.
A gap in media time becomes silence: after a loss by media time, exactly; otherwise where the room's clock says that
the next frame belongs. There, and in frames that are silent themselves, drift is made good; never inside speech.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import ingest_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.mapping import JUMP_NS, RoomMapping
from roomtape_service.recording.positions import duration_ns, position_of, samples_of
from roomtape_service.recording.protocol import RoomClock
from roomtape_service.recording.reorder import Reorder, TrackFrame

__all__ = ["FrameTimeError", "TrackTimeline"]

_CONTIGUOUS_NS: Final = NANOSECONDS // 400
"""Media times that are off by less than 2.5 ms, the shortest frame, are rounding."""
_LOSS_NS: Final = NANOSECONDS
"""Across losses up to here media time is trusted to the sample."""
_TIME_JUMP_NS: Final = 24 * 3600 * NANOSECONDS
_CAPTURE_BACK_NS: Final = NANOSECONDS
_GUARD_NS: Final = NANOSECONDS // 5
"""Publishers say that all before the time of sending was sent, but the frame that is being captured then was not, and
encoders look ahead."""
_GUARD_MAX_NS: Final = 2 * NANOSECONDS
_STEP_NS: Final = NANOSECONDS
"""Publishers send at least twice a second."""
_ERROR_DIVISOR: Final = 2000
"""Half a millisecond is what a track may be off before silence is made longer or shorter."""


class FrameTimeError(ValueError):
    """Times of a frame that can't follow those of the frame before it."""


class _Floor(NamedTuple):
    """Where a recording ended that lacks the frames after `sequence`."""

    sequence: int
    position: int
    reach: int | None
    """How far before it media is moved there; None: however far."""


class TrackTimeline:
    """Positions are samples of the track's rate since the room's epoch."""

    def __init__(
        self,
        rate: int,
        clock: RoomClock,
        epoch_ns: int,
        *,
        offset_ns: int | None = None,
        next_sequence: int | None = None,
    ) -> None:
        """`offset_ns`: the mapping from media to room time to go on with."""
        self.reorder = Reorder(next_sequence)
        self.position: int | None = None
        """Where the next sample goes; None before the first frame."""
        self.watermark_step_ns = 0
        """The longest time that passed between two batches; for whoever reads it to reset."""
        self._rate = rate
        self._clock = clock
        self._epoch_ns = epoch_ns
        self._mapping = RoomMapping(clock, offset_ns)
        self._ready: list[tuple[TrackFrame, int]] = []
        self._previous: TrackFrame | None = None
        self._end = 0
        self._end_media_ns = 0
        self._sent_ns: int | None = None
        self._at_ns = 0
        self._guard_ns = _GUARD_NS
        self._durations: dict[int, int] = {}
        self._floors: list[_Floor] = []

    def begin_not_before(self, position: int, sequence: int) -> None:
        """Before anything came: a recording that lacks what comes after `sequence` has ended at `position`.

        The first frame lies there at the earliest, whatever the clocks say; it is made good as drift is.
        """
        self._floors.append(_Floor(sequence, position, None))

    def begin_near(self, position: int, sequence: int) -> None:
        """As `begin_not_before`, for a recording that ends inside of frames, and that has to do without what is late:
        the first frame moves only if clocks are wrong, since it would end before `position`, and not by more than
        they may be."""
        self._floors.append(_Floor(sequence, position, samples_of(JUMP_NS, self._rate)))

    def go_on_with(self, offset_ns: int) -> None:
        """Before anything came: the mapping from media to room time to go on with."""
        self._mapping = RoomMapping(self._clock, offset_ns)

    def steps(self, batch: ingest_pb2.FrameBatch) -> bool:
        """Whether a batch comes after a time in which the publisher said nothing."""
        if self._sent_ns is None or not batch.HasField("sent_time") or batch.HasField("complete_time"):
            return False
        return batch.sent_time.seconds * NANOSECONDS - self._sent_ns > _STEP_NS

    def push(self, batch: ingest_pb2.FrameBatch, arrival_ns: int) -> int:
        """Takes a batch as it came. Returns how many frames wait to be taken."""
        reorder, ready = self.reorder, self._ready
        frames: list[TrackFrame] = []
        for frame in batch.frames:
            media, capture = frame.media_time, frame.capture_time
            frames.append(
                TrackFrame(
                    frame.sequence,
                    media.seconds * NANOSECONDS + media.nanos,
                    capture.seconds * NANOSECONDS + capture.nanos,
                    frame.payload,
                )
            )
        following = reorder.follow(frames)
        ready.extend([(each, 0) for each in frames[:following]])
        for each in frames[following:]:
            ready.extend(reorder.push(each, arrival_ns))
        last = frames[-1] if frames else None
        sent_ns = _nanoseconds(batch.sent_time) if batch.HasField("sent_time") else None
        if sent_ns is not None:
            self._mapping.observe_sending(sent_ns, arrival_ns)
        elif last is not None:
            sent_ns = last.capture_ns
            self._mapping.observe_sending(sent_ns, arrival_ns)
        if batch.HasField("complete_time"):
            sent_ns = _nanoseconds(batch.complete_time)
        if sent_ns is not None:
            self._sent(sent_ns)
        return len(self._ready)

    def release(self, now_ns: int, *, everything: bool = False) -> None:
        """Gives up waiting for what is missing, where it is time to, or at all."""
        if self.reorder.is_waiting:
            self._ready.extend(self.reorder.release(now_ns, everything=everything))

    def take(self) -> list[tuple[TrackFrame, int]]:
        """The frames in order that came since the last call, each with the number of those lost before it."""
        ready, self._ready = self._ready, []
        return ready

    def place(self, frame: TrackFrame, samples: int, lost: int) -> int:
        """The position of a frame of `samples`. Raises FrameTimeError, and then nothing is changed."""
        _, media_ns, capture_ns, _ = frame
        position = self.position
        gap_ns = media_ns - self._end_media_ns
        if (
            position is None
            or lost
            or not -_CONTIGUOUS_NS < gap_ns < _CONTIGUOUS_NS
            or not self._mapping.is_usual(media_ns, capture_ns)
        ):
            position = self._place_apart(frame, gap_ns, lost)
            if self.position is None:
                position = self._raised(frame.sequence, position, samples, lost)
        elif position != self._end:
            self._widen_guard(position - self._end)
        self._previous = frame
        self._end_media_ns = media_ns + self.duration_ns(samples)
        self._end = self.position = position + samples
        return position

    def place_all(self, frames: Sequence[TrackFrame], samples: int) -> list[tuple[int, int]]:
        """As `place` of frames that are equally long and between which none is lost: positions, and how many of the
        frames follow each other from there. Ends before a frame for which `place` would raise FrameTimeError."""
        runs: list[tuple[int, int]] = []
        index = 0
        while index < len(frames):
            before = self.position
            count = self._follow(frames, index, samples)
            if not count:
                try:
                    before = self.place(frames[index], samples, 0)
                except FrameTimeError:
                    break
                count = 1
            assert before is not None
            if runs and runs[-1][0] + runs[-1][1] * samples == before:
                runs[-1] = (runs[-1][0], runs[-1][1] + count)
            else:
                runs.append((before, count))
            index += count
        return runs

    def duration_ns(self, samples: int) -> int:
        """How long `samples` of the track last."""
        duration = self._durations.get(samples)
        if duration is None:
            duration = self._durations[samples] = duration_ns(samples, self._rate)
        return duration

    def _follow(self, frames: Sequence[TrackFrame], start: int, samples: int) -> int:
        """Places those of `frames`, from `start` on, that `place` would not look at further; returns how many."""
        usual = self._mapping.usual
        if self.position is None or self.position != self._end or usual is None:
            return 0
        from_ns, before_ns, from_skew_ns, before_skew_ns = usual
        end_media_ns, duration = self._end_media_ns, self.duration_ns(samples)
        index = start
        for _, media_ns, capture_ns, _ in frames if start == 0 else frames[start:]:
            if not (
                -_CONTIGUOUS_NS < media_ns - end_media_ns < _CONTIGUOUS_NS
                and from_ns <= capture_ns < before_ns
                and from_skew_ns <= capture_ns - media_ns < before_skew_ns
            ):
                break
            end_media_ns = media_ns + duration
            index += 1
        if index > start:
            self._previous = frames[index - 1]
            self._end_media_ns = end_media_ns
            self._end = self.position = self._end + (index - start) * samples
        return index - start

    def _place_apart(self, frame: TrackFrame, gap_ns: int, lost: int) -> int:
        """The position of a frame that need not follow the one before it."""
        self._check(frame)
        _, media_ns, capture_ns, _ = frame
        stood_still = self._mapping.is_discontinuous(media_ns, capture_ns)
        self._mapping.observe_capture(media_ns, capture_ns)
        self._at_ns = capture_ns + self._mapping.delay_ns
        if self.position is None:
            return self._clock_position(media_ns)
        if stood_still or gap_ns > _LOSS_NS or (gap_ns >= _CONTIGUOUS_NS and not lost):
            return max(self.position, self._clock_position(media_ns))
        if lost:
            return max(self.position, self._end + samples_of(gap_ns, self._rate))
        self._widen_guard(self.position - self._end)
        return self.position

    def _raised(self, sequence: int, position: int, samples: int, lost: int) -> int:
        """The position of the first frame, where clocks had it begin before the end of what is recorded already."""
        raised = position
        for floor in self._floors:
            late = floor.position - position
            if floor.reach is not None and not samples < late <= floor.reach:
                continue
            if late > 0 and sequence > floor.sequence:
                missing = min(lost * samples, samples_of(_LOSS_NS, self._rate))
                raised = max(raised, floor.position + missing)
        return raised

    def error_samples(self) -> int:
        """How much later the next sample should be, if that is more than may be."""
        if self.position is None:
            return 0
        error = self._clock_position(self._end_media_ns) - self._end
        return error if abs(error) * _ERROR_DIVISOR > self._rate else 0

    def correct(self, samples: int) -> None:
        """The frame placed last was made longer by `samples`, or shorter."""
        self._end += samples
        self.position = self._end

    def frontier(self) -> int | None:
        """Up to where the track is final, frames that wait to be taken aside; None before anything is known.

        Silence up to there is silence: `position` moves there.
        """
        if self._sent_ns is None or self._ready or self.reorder.is_waiting:
            return self.position
        watermark = self._watermark(self._sent_ns - self._guard_ns)
        if self.position is None:
            return watermark
        self.position = max(self.position, watermark)
        return self.position

    def watermark(self) -> int | None:
        """Up to where the publisher says that it has sent everything, without a margin; None before it did."""
        if self._sent_ns is None:
            return self.position
        watermark = self._watermark(self._sent_ns)
        return watermark if self.position is None else max(self.position, watermark)

    @property
    def end_media_ns(self) -> int:
        """Media time after the frame placed last."""
        return self._end_media_ns

    def _sent(self, sent_ns: int) -> None:
        if self._sent_ns is not None:
            self.watermark_step_ns = max(self.watermark_step_ns, sent_ns - self._sent_ns)
            sent_ns = max(sent_ns, self._sent_ns)
        self._sent_ns = sent_ns

    def _watermark(self, sent_ns: int) -> int:
        return position_of(self._mapping.room_ns(sent_ns), self._rate, self._epoch_ns)

    def _clock_position(self, media_ns: int) -> int:
        return position_of(media_ns + self._mapping.offset_ns(self._at_ns), self._rate, self._epoch_ns)

    def _widen_guard(self, shift: int) -> None:
        """A publisher that went on where silence had been written sends later than it says."""
        if shift > 0:
            self._guard_ns = min(_GUARD_MAX_NS, self._guard_ns + duration_ns(shift, self._rate))

    def _check(self, frame: TrackFrame) -> None:
        previous = self._previous
        if previous is None:
            if self._sent_ns is not None and abs(frame.capture_ns - self._sent_ns) > _TIME_JUMP_NS:
                raise FrameTimeError("captured more than 24 h from when it was sent")
            return
        media_ns = frame.media_ns - previous.media_ns
        capture_ns = frame.capture_ns - previous.capture_ns
        if media_ns < 0:
            raise FrameTimeError(f"media time {-media_ns} ns before that of the frame before it")
        if capture_ns < -_CAPTURE_BACK_NS:
            raise FrameTimeError(f"captured {-capture_ns} ns before the frame before it")
        if media_ns > _TIME_JUMP_NS or capture_ns > _TIME_JUMP_NS:
            raise FrameTimeError("more than 24 h after the frame before it")


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * NANOSECONDS + time.nanos
