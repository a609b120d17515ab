"""What a node tells its workers, and what they tell it; see `protocol` for how.

All times are room time in integer nanoseconds. Handles of rooms and tracks are chosen by the node, unique for the
life of the connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roomtape_service.recording.vocabulary import (
    CompletedFile,
    Container,
    FrameStatistics,
    GapReason,
    RecordingKind,
    Resume,
    RoomClock,
    SpoolTrouble,
    StartedFile,
    TrackCodec,
)

__all__ = [
    "BEFORE_ALL_NS",
    "Bye",
    "Gap",
    "Hello",
    "NodeOp",
    "Op",
    "RecordingFailed",
    "RecordingStart",
    "RecordingStop",
    "RecordingStopped",
    "RecordingTracks",
    "Rejected",
    "RoomClose",
    "RoomOpen",
    "Safe",
    "SegmentCompleted",
    "SegmentGrown",
    "SegmentStarted",
    "Shutdown",
    "TrackBack",
    "TrackClose",
    "TrackLost",
    "TrackMute",
    "TrackOpen",
    "Warning",
    "WorkerOp",
]

BEFORE_ALL_NS = 0
"""A room time before all media: what ends there ends where it stands, and nothing is filled up to it."""

# Node to worker.


@dataclass(frozen=True, slots=True)
class RoomOpen:
    """A room, before its tracks and recordings."""

    room: int
    clock: RoomClock
    epoch_ns: int
    """The room's creation, or on a MEDIA clock when its first participant joined: sample 0 of every position."""
    gap_reason: GapReason = GapReason.INTERRUPTED
    """Why something may be missing since the room was recorded last."""


@dataclass(frozen=True, slots=True)
class RoomClose:
    """The room is gone; its recordings were stopped and its tracks closed before."""

    room: int


@dataclass(frozen=True, slots=True)
class TrackOpen:
    """A track that some recording takes; it counts as connected."""

    track: int
    room: int
    user_id: str
    key: str
    """`<publish_session_id>/<track_id>`: names the track in resume information."""
    codec: TrackCodec
    sample_rate: int
    channels: int
    offset_ns: int | None = None
    """Mapping from media time to room time to go on with."""
    sequence: int | None = None
    """Newest sequence that is acknowledged already, 0 at a session's start: one that does not come after it
    counts as lost. None: the first frame that comes is the first."""


@dataclass(frozen=True, slots=True)
class TrackMute:
    """The publisher muted or unmuted the track."""

    track: int
    muted: bool
    at_ns: int


@dataclass(frozen=True, slots=True)
class TrackLost:
    """The publisher's connection broke; it may come back."""

    track: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class TrackBack:
    """The publisher resumed its session."""

    track: int


@dataclass(frozen=True, slots=True)
class TrackClose:
    """The track ended: files of it end at `at_ns`. The handle is gone."""

    track: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class RecordingStart:
    """A recording to write; its inputs follow in RecordingTracks. The node may start a recording again that
    failed or that another worker had."""

    recording_id: str
    task_id: str
    room: int
    kind: RecordingKind
    containers: tuple[Container, ...]
    segment_ns: int
    segment_bytes: int
    bitrate: int
    """Bits a second of what is encoded."""
    next_segment: int
    mute_ends_segment: bool
    break_wait_ns: int
    """A forward gap that is longer ends the segment instead of being filled with silence."""
    from_ns: int
    """Frames that end before are not recorded."""
    resume: Mapping[str, Resume] = field(default_factory=dict)
    """By track key."""
    position_ns: int | None = None
    """`end_ns` of the segment before, to go on exactly there: a MIXED recording always, a SINGLE one fills
    with silence up to its first frame if that comes within `break_wait_ns`."""
    ended_ns: int | None = None
    """`end_ns` of the segment before, where there is nothing to go on with: the next begins there at the earliest."""
    sample_rate: int = 0
    """Of files that are not passed untouched; 0 in both: as the track, or the mix."""
    channels: int = 0
    expected: tuple[str, ...] = ()
    """MIXED: keys of tracks that will be there again; the mix waits some seconds for them."""


@dataclass(frozen=True, slots=True)
class RecordingTracks:
    """The inputs of a recording from here on. A SINGLE recording takes the first that is not closed."""

    recording_id: str
    tracks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RecordingStop:
    """Write what has arrived, end the segment, answer RecordingStopped."""

    recording_id: str
    at_ns: int
    trouble: SpoolTrouble | None = None
    """Why the segment counts as interrupted, if it does."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End all segments (they do not count as interrupted), answer Bye, exit."""


# Worker to node.


@dataclass(frozen=True, slots=True)
class Hello:
    """The worker's first message."""

    index: int
    generation: str
    """Name of its folder in the spool."""
    pid: int
    spool: str
    """Path of that folder."""


@dataclass(frozen=True, slots=True)
class SegmentStarted:
    """A segment has its first checkpoint: from here on it survives the worker. A segment that is not
    announced does not exist, and its number is used again."""

    recording_id: str
    segment: int
    start_ns: int
    files: tuple[StartedFile, ...]
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class SegmentGrown:
    """A checkpoint made more parts of a segment's files final (`storage.part`), so that they can be uploaded."""

    recording_id: str
    segment: int
    sizes: Mapping[str, int]
    """By container: how many bytes the checkpoint holds."""


@dataclass(frozen=True, slots=True)
class SegmentCompleted:
    """A segment is complete on the spool, and the spool's journal says so."""

    recording_id: str
    segment: int
    start_ns: int
    end_ns: int
    sample_rate: int
    channels: int
    sample_count: int
    """Of its timeline; a file's own count may differ by less than a packet."""
    interrupted: bool
    files: tuple[CompletedFile, ...]
    statistics: FrameStatistics
    resume: Mapping[str, Resume]
    """Where the recording stood with its tracks at the segment's end, by track key."""
    trouble: SpoolTrouble | None = None
    """What interrupted it, if that was not its worker's death."""


@dataclass(frozen=True, slots=True)
class RecordingStopped:
    """The answer to RecordingStop, after the last SegmentCompleted."""

    recording_id: str


@dataclass(frozen=True, slots=True)
class Safe:
    """By track handle: the newest sequence that is on the spool in every recording that takes the track."""

    tracks: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Frames of a track that were dropped for their own fault; `reason` names an ErrorReason."""

    track: int
    first: int
    last: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Media of a user that is missing in a recording."""

    recording_id: str
    user_id: str
    from_ns: int
    to_ns: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Warning:
    """Something needs attention; recording goes on. `reason` names an ErrorReason."""

    recording_id: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The spool can't be written: the recording ended its segment at the last checkpoint (SegmentCompleted
    came before, if the segment was announced) and is gone from the worker."""

    recording_id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The answer to Shutdown; nothing follows."""


NodeOp = (
    RoomOpen
    | RoomClose
    | TrackOpen
    | TrackMute
    | TrackLost
    | TrackBack
    | TrackClose
    | RecordingStart
    | RecordingTracks
    | RecordingStop
    | Shutdown
)
WorkerOp = (
    Hello
    | SegmentStarted
    | SegmentGrown
    | SegmentCompleted
    | RecordingStopped
    | Safe
    | Rejected
    | Gap
    | Warning
    | RecordingFailed
    | Bye
)
Op = NodeOp | WorkerOp
