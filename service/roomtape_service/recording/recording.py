"""What single recordings and mixes have in common: a life from start to stop, or to a spool that can't be written."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import structlog

from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.closing import ClosedSegment, FailedClosing
from roomtape_service.recording.containers.table import passes_packets
from roomtape_service.recording.delivery import Delivery, MissingMedia
from roomtape_service.recording.positions import ns_of, position_of, samples_of
from roomtape_service.recording.protocol import (
    BEFORE_ALL_NS,
    Gap,
    RecordingFailed,
    RecordingStart,
    RecordingStopped,
    Resume,
    RoomOpen,
    SpoolTrouble,
    TrackCodec,
    Warning,
)
from roomtape_service.recording.series import SegmentSeries, SeriesServices
from roomtape_service.recording.track import Lane

__all__ = ["FILL_NS", "Recording"]

FILL_NS: Final = 30 * NANOSECONDS
"""How much silence is written at most up to where a track was muted or closed, or a recording stopped."""
_RETRY_NS: Final = NANOSECONDS
_PENDING_BYTES_MAX: Final = 1024 * 1024
"""Media that comes faster than real time is not kept until the next tick."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

log = structlog.get_logger(__name__)


class Recording(ABC):
    """One recording on this worker. `lanes` are its inputs.

    What it writes may fail: then it ends where its last checkpoint is, tells the node, and takes nothing more.
    """

    def __init__(
        self, order: RecordingStart, room: RoomOpen, services: SeriesServices, *, cuts_anywhere: bool
    ) -> None:
        self.order = order
        self.room = room
        self.lanes: list[Lane] = []
        self.series = SegmentSeries(order, room, services, cuts_anywhere=cuts_anywhere)
        self.is_gone = False
        """Whether the node was told that nothing more will come."""
        self._send = services.send
        self._resumes = dict(order.resume)
        self._is_stopping = False
        self._is_quiet = False
        self._is_interlude = False
        self._error: OSError | None = None
        self._retry_at_ns = 0
        self._has_warned = False

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether only its life here ended: it will be started again, and lacks what is not in its segments."""
        return self._error is not None or self._is_interlude

    @property
    def is_ending(self) -> bool:
        """Whether it takes nothing more."""
        return self._is_stopping or self._error is not None

    def safe_sequence(self, lane: Lane) -> int | None:
        """What of a lane's track needs not be sent again; None if nothing is known."""
        return self.series.safe.get(lane.facts.key)

    def decodes(self, codec: TrackCodec) -> bool:
        """Whether some file of a track of this codec holds other than its packets."""
        return any(not passes_packets(codec, each) for each in self.series.containers_of(codec))

    def resume_of(self, key: str) -> Resume | None:
        """Where to go on with a track, the first time it is taken."""
        return self._resumes.pop(key, None)

    def attach(self, lane: Lane) -> None:
        """Takes the lane's track from here on."""
        self.lanes.append(lane)
        lane.takers.append(self)
        key = lane.facts.key
        if lane.delivered and not self.holds(key):
            self.series.safe[key] = max(lane.delivered, self.series.safe.get(key, 0))

    def detach(self, lane: Lane, until: int | None) -> None:
        """Takes the lane's track no more. `until`: silence up to a position, where the track was closed."""
        self.lanes.remove(lane)
        lane.takers.remove(self)
        self._guarded(lambda: self._leave(lane, until))

    def take(self, lane: Lane, delivery: Delivery) -> None:
        """See TrackTaker."""
        if self.is_ending:
            return
        self._guarded(lambda: self._take(lane, delivery))
        if self.series.pending_bytes > _PENDING_BYTES_MAX:
            self._guarded(self.series.checkpoint)

    def holds(self, key: str) -> bool:
        """Whether frames of a track still wait for a checkpoint."""
        return self.series.holds(key)

    def mute(self, lane: Lane, position: int) -> None:
        """The lane's track was muted there."""
        self._guarded(lambda: self._mute(lane, position))

    def tick(self, now_ns: int) -> None:
        """Writes a checkpoint, and does what is due at `now_ns` of the monotonic clock."""
        self._guarded(lambda: self._tick(now_ns))
        if now_ns >= self._retry_at_ns and (failure := self.series.closing.retry()) is not None:
            self._retry_at_ns = now_ns + _RETRY_NS
            self._warn(failure)

    def stop(self, at_ns: int | None, trouble: SpoolTrouble | None = None) -> None:
        """Writes what was taken, with silence up to `at_ns` where publishers vouch for it, and ends.

        Without `at_ns` the worker stops, not the recording: nothing is told but its segments. At BEFORE_ALL_NS it
        begins anew, or rests. `trouble`: why the segment counts as interrupted.
        """
        self.series.trouble = trouble
        self._is_interlude = at_ns is None or at_ns == BEFORE_ALL_NS
        self._guarded(lambda: self._finish(at_ns))
        self._is_stopping = True
        self._is_quiet = at_ns is None
        for lane in list(self.lanes):
            self.lanes.remove(lane)
            lane.takers.remove(self)
        self._settle()

    def closed(self, result: ClosedSegment | FailedClosing) -> None:
        """What became of a segment that was to be finished."""
        self.series.closing.take(result)
        self._settle()

    @abstractmethod
    def lose(self, lane: Lane, now_ns: int) -> None:
        """The connection of the lane's publisher broke, at `now_ns` of the monotonic clock."""

    @abstractmethod
    def find(self, lane: Lane) -> None:
        """The lane's publisher is back."""

    @property
    @abstractmethod
    def needs_pcm(self) -> bool:
        """See TrackTaker."""

    @abstractmethod
    def _take(self, lane: Lane, delivery: Delivery) -> None: ...

    @abstractmethod
    def _leave(self, lane: Lane, until: int | None) -> None: ...

    @abstractmethod
    def _mute(self, lane: Lane, position: int) -> None: ...

    @abstractmethod
    def _tick(self, now_ns: int) -> None: ...

    @abstractmethod
    def _finish(self, at_ns: int | None) -> None: ...

    def _report_missing(self, lane: Lane, missing: MissingMedia) -> None:
        rate, epoch_ns = lane.format.rate, self.room.epoch_ns
        start = missing.start
        if self.order.position_ns is not None:
            # A publisher who left before all was acknowledged comes again as if new: what was written is not missing.
            start = max(start, position_of(self.order.position_ns, rate, epoch_ns))
        if start >= missing.end:
            return
        self._send(
            Gap(
                recording_id=self.order.recording_id,
                user_id=lane.facts.user_id,
                from_ns=ns_of(start, rate, epoch_ns),
                to_ns=ns_of(missing.end, rate, epoch_ns),
                reason=missing.reason,
            )
        )

    @property
    def _pause_ns(self) -> int:
        """How long a publisher who is connected may say nothing, before their silence counts as a break.

        A profile that does not wait for those whose connection broke still knows pauses of speech.
        """
        return max(self.order.break_wait_ns, FILL_NS)

    def _breaks(self, samples: int, delivery: Delivery) -> bool:
        """Whether so much silence is a break: long, and nobody said in between that it is silence."""
        form = self.series.format
        if form is None or delivery.step_ns <= self._pause_ns:
            return False
        return samples > samples_of(self._pause_ns, form.rate)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._error is not None:
            return
        try:
            work()
        except OSError as error:
            log.error("recording_failed", recording=self.order.recording_id, error=str(error))
            self._error = error
            self.series.trouble = _trouble(error)
            self.series.fail()
            self._settle()

    def _settle(self) -> None:
        if self.is_gone or not self.series.closing.is_empty:
            return
        if self._error is not None:
            self.is_gone = True
            self._send(RecordingFailed(self.order.recording_id, _trouble(self._error), _text(self._error)))
        elif self._is_stopping:
            self.is_gone = True
            if not self._is_quiet:
                self._send(RecordingStopped(self.order.recording_id))

    def _warn(self, failure: FailedClosing) -> None:
        log.error("segment_not_finished", recording=self.order.recording_id, error=str(failure.error))
        if not self._has_warned:
            self._has_warned = True
            self._send(Warning(self.order.recording_id, _trouble(failure.error), _text(failure.error)))


def _trouble(error: OSError | ValueError) -> SpoolTrouble:
    is_full = isinstance(error, OSError) and error.errno in _NO_ROOM
    return SpoolTrouble.FULL if is_full else SpoolTrouble.UNWRITABLE


def _text(error: OSError | ValueError) -> str:
    return f"the spool can't be written: {error}; make room there, or mend its rights"
