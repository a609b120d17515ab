"""A track that the node feeds to this worker, and who takes it."""

import structlog
from google.protobuf.message import DecodeError

from roomtape.v1 import ingest_pb2
from roomtape_service.recording.protocol import Rejected, Resume, RoomOpen, TrackOpen
from roomtape_service.recording.recording import Recording
from roomtape_service.recording.track import Lane

__all__ = ["TrackInput"]

_QUEUED_FRAMES_MAX = 100
_QUEUED_BYTES_MAX = 128 * 1024

log = structlog.get_logger(__name__)


class TrackInput:
    """Gives every batch to the track's lanes, and knows what of the track is safe."""

    def __init__(self, facts: TrackOpen, room: RoomOpen) -> None:
        self.facts = facts
        self.room = room
        self.lanes: list[Lane] = []
        self.lost_since_ns: int | None = None
        """By the monotonic clock; None while the publisher is connected."""
        self.is_closed = False
        self.told_safe = 0
        """What the node was told."""
        self._holders: list[Recording] = []
        self._has_news = False
        self._queued_bytes = 0
        self._has_begun = False
        self._delivered = 0
        self._is_owed = False

    @property
    def is_held(self) -> bool:
        """Whether a recording takes the track, or has frames of it that are not safe."""
        return bool(self._holders)

    def push(self, payload: bytes, arrival_ns: int) -> list[Rejected]:
        """Takes a serialized batch. Returns what was rejected, if it was looked at already."""
        try:
            batch = ingest_pb2.FrameBatch.FromString(payload)
        except DecodeError as error:
            # It would come again after every restart.
            log.error("batch_unreadable", track=self.facts.key, error=str(error))
            return []
        self._has_news = self._has_begun = True
        rejected: list[Rejected] = []
        for lane in self.lanes:
            if lane.timeline.steps(batch):
                rejected += self.deliver(arrival_ns)
                break
        queued = 0
        for lane in self.lanes:
            queued = max(queued, lane.push(batch, arrival_ns))
        self._queued_bytes += len(payload)
        if queued >= _QUEUED_FRAMES_MAX or self._queued_bytes >= _QUEUED_BYTES_MAX:
            rejected += self.deliver(arrival_ns)
        self._has_news = True
        return rejected

    def deliver(self, now_ns: int, *, everything: bool = False) -> list[Rejected]:
        """Hands out what came; `now_ns` is time as of arrivals. Returns what was rejected, each once."""
        if not self._has_news and not everything:
            return []
        self._queued_bytes = 0
        self._has_news = any(lane.timeline.reorder.is_waiting for lane in self.lanes) and not everything
        rejected = [lane.deliver(now_ns, everything=everything) for lane in self.lanes]
        self._delivered = max((lane.delivered for lane in self.lanes), default=self._delivered)
        return rejected[0] if rejected else []

    def attach(self, recording: Recording) -> None:
        """The recording takes the track from here on, or from where it stood with it."""
        lane = self._lane_for(recording.resume_of(self.facts.key))
        recording.attach(lane)
        self._is_owed = False
        if recording not in self._holders:
            self._holders.append(recording)
        if self.lost_since_ns is not None:
            recording.lose(lane, self.lost_since_ns)

    def detach(self, recording: Recording, until: int | None = None) -> None:
        """The recording takes the track no more. `until`: silence up to that position."""
        for lane in self.lanes:
            if recording in lane.takers:
                recording.detach(lane, until)
        self._drop_lanes()

    def safe(self) -> int | None:
        """The newest sequence that is safe in all recordings that take the track; None if that is not known."""
        released = [each for each in self._holders if not self._is_holding(each)]
        self._holders = [each for each in self._holders if each not in released]
        # What these lack they will ask for again; until then only the node knows what is safe.
        owing = [each for each in released if each.goes_on_elsewhere]
        self._is_owed = self._is_owed or bool(owing)
        counted = [*self._holders, *owing]
        if not counted:
            return None if self._is_owed else self._delivered or None
        known = [each.series.safe.get(self.facts.key) for each in counted]
        return None if None in known else min(each for each in known if each is not None)

    def _is_holding(self, recording: Recording) -> bool:
        if recording.is_gone:
            return False
        return any(recording in lane.takers for lane in self.lanes) or recording.holds(self.facts.key)

    def _lane_for(self, resume: Resume | None) -> Lane:
        facts = self.facts
        # Of a publisher who comes back after the node's death, nobody knows from where on they send again.
        wants_all = resume is None and facts.sequence is None and not self._has_begun
        for lane in self.lanes:
            following = lane.timeline.reorder.next_sequence
            if resume is None:
                if not wants_all or following is None:
                    return lane
            elif following is not None and following <= resume.sequence + 1:
                return lane
            elif following is not None and not self._has_begun:
                # Nothing came yet: all can still read the same, from the first frame that any of them lacks.
                lane.begin_at(resume.sequence + 1, resume.offset_ns)
                return lane
        offset_ns = facts.offset_ns if resume is None else resume.offset_ns
        known = [each for each in (facts.sequence, resume.sequence if resume else None) if each is not None]
        lane = Lane(facts, self.room, offset_ns=offset_ns, next_sequence=self._first(known))
        self.lanes.append(lane)
        return lane

    def _first(self, known: list[int]) -> int | None:
        if self._has_begun and not self.lanes:
            # Frames that no recording took were not sent: the next that comes is the first.
            return None
        return min(known) + 1 if known else None

    def _drop_lanes(self) -> None:
        self.lanes = [lane for lane in self.lanes if lane.takers]
