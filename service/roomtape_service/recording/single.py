"""The recording of one user: their frames as they come, in segments that end where the user's presence does."""

from collections.abc import Iterable

from roomtape_service.recording.delivery import Delivery, Piece, Run
from roomtape_service.recording.marks import Mark
from roomtape_service.recording.positions import first_position, position_of, samples_of
from roomtape_service.recording.protocol import RecordingStart, RoomOpen
from roomtape_service.recording.recording import FILL_NS, Recording
from roomtape_service.recording.series import SeriesServices
from roomtape_service.recording.track import Lane

__all__ = ["SingleRecording"]


class SingleRecording(Recording):
    """Writes one lane at a time; its segments have the lane's rate and channels."""

    def __init__(self, order: RecordingStart, room: RoomOpen, services: SeriesServices) -> None:
        super().__init__(order, room, services, cuts_anywhere=False)
        self._resume_ns = order.position_ns
        self._lost_since_ns: int | None = None

    @property
    def needs_pcm(self) -> bool:
        return not self.is_ending and any(self.decodes(lane.format.codec) for lane in self.lanes)

    def attach(self, lane: Lane) -> None:
        super().attach(lane)
        if (end := self._end_before(lane)) is not None:
            lane.timeline.begin_not_before(end, self.series.safe.get(lane.facts.key, 0))

    def lose(self, lane: Lane, now_ns: int) -> None:
        self._lost_since_ns = now_ns

    def find(self, lane: Lane) -> None:
        self._lost_since_ns = None

    def _take(self, lane: Lane, delivery: Delivery) -> None:
        series = self.series
        if delivery.duplicated or delivery.reordered or delivery.late:
            series.count(
                duplicated=delivery.duplicated,
                reordered=delivery.reordered,
                late=delivery.late,
            )
        key = lane.facts.key
        known = series.safe.get(key, 0)
        for piece in delivery.pieces:
            if isinstance(piece, Run):
                if (
                    piece.sequence > known
                    and series.is_open
                    and piece.position == series.position
                    and series.fits(piece.samples)
                ):
                    series.add_run(piece, _run_mark(piece, key, lane.format.rate))
                    continue
                pieces: Iterable[Piece] = piece.pieces()
            else:
                pieces = (piece,)
            for each in pieces:
                if each.sequence > known:
                    self._add(lane, key, each, delivery, lost=min(each.lost, each.sequence - known - 1))
        for missing in delivery.missing:
            self._report_missing(lane, missing)
        frontier = delivery.frontier
        if series.is_open and frontier is not None and frontier > series.position:
            if self._breaks(frontier - series.position, delivery):
                series.end()
            else:
                series.add_silence(frontier)

    def _add(self, lane: Lane, key: str, piece: Piece, delivery: Delivery, *, lost: int) -> None:
        series = self.series
        position, samples = piece.position, piece.samples
        if not samples:
            series.count(rejected=1)
            series.mark(_mark(series.position, key, piece, lane.format.rate, recorded=0, lost=lost))
            return
        if not series.is_open:
            is_wanted = position + samples > self._first_position(lane)
            if not is_wanted or not series.containers_of(lane.format.codec):
                series.mark(_mark(position, key, piece, lane.format.rate, recorded=0, lost=0))
                return
            self._begin(lane, position)
        elif position > series.position and self._breaks(position - series.position, delivery):
            series.end()
            self._begin(lane, position)
        if position > series.position:
            series.add_silence(position)
        is_good = piece.packet is not None
        if not is_good:
            series.count(rejected=1)
        end = series.position + samples
        mark = _mark(end, key, piece, lane.format.rate, recorded=int(is_good), lost=lost)
        series.add_frame(piece.pcm, samples, piece.packet, piece.duration, mark)

    def _begin(self, lane: Lane, position: int) -> None:
        """A segment begins at the frame, or where the one before was cut off if that is near."""
        if self._resume_ns is not None:
            resumed = position_of(self._resume_ns, lane.format.rate, self.room.epoch_ns)
            if 0 <= position - resumed <= samples_of(self.order.break_wait_ns, lane.format.rate):
                position = resumed
            self._resume_ns = None
        if (end := self._end_before(lane)) is not None:
            position = max(position, end)
        self.series.begin(position, lane.format)

    def _end_before(self, lane: Lane) -> int | None:
        ended_ns = self.series.ended_ns
        return None if ended_ns is None else first_position(ended_ns, lane.format.rate, self.room.epoch_ns)

    def _first_position(self, lane: Lane) -> int:
        return position_of(self.order.from_ns, lane.format.rate, self.room.epoch_ns)

    def _leave(self, lane: Lane, until: int | None) -> None:
        self._fill(lane, until)
        self.series.end()
        self._lost_since_ns = None

    def _mute(self, lane: Lane, position: int) -> None:
        if self.order.mute_ends_segment:
            self._fill(lane, position)
            self.series.end()
            self._resume_ns = None

    def _fill(self, lane: Lane, until: int | None) -> None:
        if until is None or not self.series.is_open:
            return
        if 0 < until - self.series.position <= samples_of(FILL_NS, lane.format.rate):
            self.series.add_silence(until)

    def _tick(self, now_ns: int) -> None:
        lost_ns = self._lost_since_ns
        if lost_ns is not None and now_ns - lost_ns >= self.order.break_wait_ns:
            self.series.end()
            self._lost_since_ns = None
        self.series.checkpoint()

    def _finish(self, at_ns: int | None) -> None:
        for lane in self.lanes:
            watermark = lane.timeline.watermark()
            if at_ns is not None and watermark is not None:
                at = position_of(at_ns, lane.format.rate, self.room.epoch_ns)
                self._fill(lane, min(at, watermark))
        self.series.end()


def _run_mark(run: Run, key: str, rate: int) -> Mark:
    end = run.position + run.samples
    *earlier, end_media_ns = run.ends_media_ns
    return Mark(
        end, end, key, run.last_sequence, end, rate, end_media_ns, len(run.packets), 0, earlier, run.size
    )


def _mark(end: int, key: str, piece: Piece, rate: int, *, recorded: int, lost: int) -> Mark:
    track_end = piece.position + piece.samples
    return Mark(end, end, key, piece.sequence, track_end, rate, piece.end_media_ns, recorded, lost)
