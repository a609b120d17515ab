"""A recording as its room's feed knows it: enough to start it again on another worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roomtape_service.recording import protocol
from roomtape_service.recording.remembering import remember

__all__ = ["FeedRecording", "RecordingFacts"]


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What a worker must know of a recording that does not change while it runs."""

    recording_id: str
    task_id: str
    kind: protocol.RecordingKind
    containers: tuple[protocol.Container, ...]
    segment_ns: int
    segment_bytes: int
    bitrate: int
    mute_ends_segment: bool
    break_wait_ns: int
    from_ns: int
    sample_rate: int = 0
    channels: int = 0


@dataclass(slots=True, eq=False)
class FeedRecording:
    """One recording of a room's feed.

    `base` is, for each track, the newest sequence that was acknowledged before the recording took the track; with
    `resume` it says from where on frames must be sent again when its worker is lost. `leaving` are the tracks that it
    takes no more, with the sequence up to which it may still have to write them.
    """

    facts: RecordingFacts
    next_segment: int = 0
    position_ns: int | None = None
    ended_ns: int | None = None
    """Where the newest segment ended, also of a recording that rested since."""
    resume: dict[str, protocol.Resume] = field(default_factory=dict)
    base: dict[str, int] = field(default_factory=dict)
    tracks: tuple[str, ...] = ()
    leaving: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    """Of `leaving` those of which the worker that has the recording now was sent all."""
    stop_at_ns: int | None = None
    is_running: bool = False
    begins_anew: bool = False
    """Whether the worker was told to end it only to begin it anew."""
    newest_ended: int = -1
    """The newest segment that is known to have ended."""
    has_failed: bool = False
    """Whether it could not be written, and was not since."""
    is_resting: bool = False
    """Whether the worker was told to forget it: its user is not there."""
    unanswered_rests: int = 0
    """How often the worker will still say that it stopped, and mean a rest."""

    @property
    def takes_one_track(self) -> bool:
        """Whether the worker writes one track at a time."""
        return self.facts.kind is protocol.RecordingKind.SINGLE

    @property
    def is_idle(self) -> bool:
        """Whether it is of a user who left, with all of theirs in segments that have ended."""
        has_all = not self.tracks and not self.leaving and self.newest_ended + 1 == self.next_segment
        return self.takes_one_track and self.stop_at_ns is None and has_all

    def safe_sequence(self, key: str) -> int:
        """What of the track needs not be sent again to this recording after the loss of its worker."""
        resume = self.resume.get(key)
        return max(self.base.get(key, 0), resume.sequence if resume else 0)

    def continue_after(self, segment: int, end_ns: int, resume: Mapping[str, protocol.Resume]) -> None:
        """A segment ended: the next one goes on from there. Nothing if a later one is known."""
        if segment < self.newest_ended:
            return
        self.newest_ended = segment
        self.next_segment = max(self.next_segment, segment + 1)
        self.position_ns = self.ended_ns = end_ns
        remember(self.resume, resume)

    def start(self, room: int, expected: tuple[str, ...]) -> protocol.RecordingStart:
        """The order to a worker to start, or to go on with, this recording."""
        facts = self.facts
        return protocol.RecordingStart(
            recording_id=facts.recording_id,
            task_id=facts.task_id,
            room=room,
            kind=facts.kind,
            containers=facts.containers,
            segment_ns=facts.segment_ns,
            segment_bytes=facts.segment_bytes,
            bitrate=facts.bitrate,
            next_segment=self.next_segment,
            mute_ends_segment=facts.mute_ends_segment,
            break_wait_ns=facts.break_wait_ns,
            from_ns=facts.from_ns,
            sample_rate=facts.sample_rate,
            channels=facts.channels,
            resume=dict(self.resume),
            position_ns=self.position_ns,
            ended_ns=self.ended_ns,
            expected=expected,
        )
