"""Everything that one worker records: it does what the node says, and tells what became of it."""

from collections.abc import Iterable

import structlog

from roomtape_service.clock import Clock
from roomtape_service.recording.inputs import TrackInput
from roomtape_service.recording.mixed import MixedRecording
from roomtape_service.recording.positions import position_of
from roomtape_service.recording.protocol import (
    Frames,
    Message,
    RecordingKind,
    RecordingStart,
    RecordingStop,
    RecordingTracks,
    Rejected,
    RoomClose,
    RoomOpen,
    Safe,
    Shutdown,
    TrackBack,
    TrackClose,
    TrackLost,
    TrackMute,
    TrackOpen,
)
from roomtape_service.recording.recording import Recording
from roomtape_service.recording.series import SeriesServices
from roomtape_service.recording.single import SingleRecording

__all__ = ["Studio"]

log = structlog.get_logger(__name__)


class Studio:
    """Rooms, tracks and recordings by the names that the node gave them. Owned by one thread."""

    def __init__(self, services: SeriesServices, clock: Clock) -> None:
        self.is_shutting_down = False
        self._services = services
        self._clock = clock
        self._rooms: dict[int, RoomOpen] = {}
        self._inputs: dict[int, TrackInput] = {}
        self._recordings: dict[str, Recording] = {}
        self._ending: list[Recording] = []
        # Frames carry the time of their arrival at the node; between them it goes on by our clock.
        self._arrival_ns = 0
        self._arrived_at_ns = clock.monotonic_ns()

    def handle(self, message: Message) -> None:
        """Does what the node says."""
        match message:
            case Frames():
                self._frames(message)
            case RoomOpen():
                self._rooms[message.room] = message
            case RoomClose():
                self._rooms.pop(message.room, None)
            case TrackOpen():
                self._inputs[message.track] = TrackInput(message, self._rooms[message.room])
            case TrackMute() | TrackLost() | TrackBack() | TrackClose():
                self._track_changed(message)
            case RecordingStart():
                self._start(message)
            case RecordingTracks():
                self._set_tracks(message)
            case RecordingStop():
                self._stop(message)
            case Shutdown():
                self.shutdown()
            case _:
                log.warning("unexpected_message", message=type(message).__name__)

    def tick(self) -> None:
        """Hands out what came, writes checkpoints, and tells what is safe."""
        now_ns = self._now_ns()
        for track in self._inputs.values():
            self._tell_rejected(track.deliver(now_ns))
        monotonic_ns = self._clock.monotonic_ns()
        for recording in [*self._recordings.values(), *self._ending]:
            recording.tick(monotonic_ns)
        self._take_closed()
        self._forget_gone()
        self._tell_safe()

    def shutdown(self) -> None:
        """Ends all segments by the rules; `tick` until `is_done`."""
        self.is_shutting_down = True
        self._deliver_all(self._inputs.values())
        for recording in self._recordings.values():
            recording.stop(None)
        self._ending += self._recordings.values()
        self._recordings.clear()

    @property
    def is_done(self) -> bool:
        """Whether every segment is finished, or can't be."""
        return all(each.is_gone or each.series.closing.has_failed for each in self._ending)

    def _frames(self, message: Frames) -> None:
        self._arrival_ns = max(self._arrival_ns, message.arrival_ns)
        self._arrived_at_ns = self._clock.monotonic_ns()
        track = self._inputs.get(message.track)
        if track is not None and not track.is_closed:
            self._tell_rejected(track.push(message.batch, message.arrival_ns))

    def _track_changed(self, message: TrackMute | TrackLost | TrackBack | TrackClose) -> None:
        track = self._inputs.get(message.track)
        if track is None:
            return
        self._deliver_all([track])
        takers = [
            (taker, lane) for lane in track.lanes for taker in self._takers(track) if lane in taker.lanes
        ]
        match message:
            case TrackMute():
                at = position_of(message.at_ns, track.facts.sample_rate, track.room.epoch_ns)
                for taker, lane in takers if message.muted else ():
                    taker.mute(lane, at)
            case TrackLost():
                track.lost_since_ns = self._clock.monotonic_ns()
                for taker, lane in takers:
                    lane.publisher_lost()
                    taker.lose(lane, track.lost_since_ns)
            case TrackBack():
                track.lost_since_ns = None
                for taker, lane in takers:
                    taker.find(lane)
            case TrackClose():
                track.is_closed = True
                at = position_of(message.at_ns, track.facts.sample_rate, track.room.epoch_ns)
                for taker, _ in takers:
                    track.detach(taker, at)

    def _takers(self, track: TrackInput) -> list[Recording]:
        return [each for each in self._recordings.values() if each.room.room == track.room.room]

    def _start(self, order: RecordingStart) -> None:
        self._forget_gone()
        replaced = self._recordings.pop(order.recording_id, None)
        if replaced is not None:
            log.error("recording_started_twice", recording=order.recording_id)
            replaced.stop(None)
            self._ending.append(replaced)
        self._recordings[order.recording_id] = self._recording(order)

    def _recording(self, order: RecordingStart) -> Recording:
        room = self._rooms[order.room]
        match order.kind:
            case RecordingKind.SINGLE:
                return SingleRecording(order, room, self._services)
            case RecordingKind.MIXED:
                return MixedRecording(order, room, self._services)

    def _set_tracks(self, message: RecordingTracks) -> None:
        recording = self._recordings.get(message.recording_id)
        if recording is None:
            return
        known = [self._inputs[handle] for handle in message.tracks if handle in self._inputs]
        wanted = [track for track in known if not track.is_closed]
        if recording.order.kind is RecordingKind.SINGLE:
            wanted = wanted[:1]
        taken = [
            track for track in self._inputs.values() if any(lane in recording.lanes for lane in track.lanes)
        ]
        self._deliver_all([*taken, *wanted])
        for track in taken:
            if track not in wanted:
                track.detach(recording)
        for track in wanted:
            if track not in taken:
                track.attach(recording)

    def _stop(self, message: RecordingStop) -> None:
        recording = self._recordings.pop(message.recording_id, None)
        if recording is None:
            return
        self._deliver_all(
            track for track in self._inputs.values() if any(lane in recording.lanes for lane in track.lanes)
        )
        recording.stop(message.at_ns, message.trouble)
        self._ending.append(recording)

    def _deliver_all(self, tracks: Iterable[TrackInput]) -> None:
        now_ns = self._now_ns()
        for track in tracks:
            self._tell_rejected(track.deliver(now_ns, everything=True))

    def _take_closed(self) -> None:
        owners = {each.series.closing: each for each in [*self._recordings.values(), *self._ending]}
        for queue, result in self._services.closer.take_results():
            if queue in owners:
                owners[queue].closed(result)

    def _forget_gone(self) -> None:
        self._ending = [each for each in self._ending if not each.is_gone]
        for recording in [each for each in self._recordings.values() if each.is_gone]:
            del self._recordings[recording.order.recording_id]
            for track in self._inputs.values():
                track.detach(recording)

    def _tell_safe(self) -> None:
        safe: dict[int, int] = {}
        for handle, track in list(self._inputs.items()):
            sequence = track.safe()
            if sequence is not None and sequence > track.told_safe:
                track.told_safe = safe[handle] = sequence
            if track.is_closed and not track.is_held:
                del self._inputs[handle]
        if safe:
            self._services.send(Safe(safe))

    def _tell_rejected(self, rejected: list[Rejected]) -> None:
        for each in rejected:
            self._services.send(each)

    def _now_ns(self) -> int:
        return self._arrival_ns + self._clock.monotonic_ns() - self._arrived_at_ns
