"""A manifest as values: what `docs/manifest.md` describes, field by field.

Times are nanoseconds since 1970 UTC by the room's clock, except those that are said to be of the server's clock. Words
are the names of the API's enums without their prefixes. None is what is not known, or not yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "FORMAT_VERSION",
    "File",
    "Gap",
    "Interruption",
    "LastSequence",
    "Manifest",
    "Mute",
    "Output",
    "Participant",
    "Recording",
    "Room",
    "Scope",
    "Segment",
    "Track",
]

FORMAT_VERSION = 1
"""Rises when a reader of an older version would misunderstand; new fields may come at any time."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a task's files are written."""

    single_containers: tuple[str, ...]
    mixed_containers: tuple[str, ...]
    segment_duration_ns: int
    audio_bitrate_bps: int
    retention_seconds: int | None = None
    """None: the application's."""
    audio_sample_rate_hz: int | None = None
    """None in both: the track's, and of the mix 48,000 and 1."""
    audio_channels: int | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task takes of its room from a time on; from its start where there is no time."""

    start_ns: int | None
    mode: str
    allow_user_ids: tuple[str, ...] = ()
    block_user_ids: tuple[str, ...] = ()

    def takes(self, user_id: str) -> bool:
        """Whether the user's audio is in it."""
        if self.allow_user_ids:
            return user_id in self.allow_user_ids
        return user_id not in self.block_user_ids


@dataclass(frozen=True, slots=True)
class Room:
    """The room; `create_ns` and `close_ns` are of the server's clock."""

    clock: str
    create_ns: int
    close_ns: int | None
    epoch_ns: int | None
    """From where samples are counted; None on a MEDIA clock to which nobody has come."""


@dataclass(frozen=True, slots=True)
class Mute:
    """A span in which a track was muted."""

    start_ns: int
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class Track:
    """What a participant published."""

    track_id: str
    source: str
    codec: str
    sample_rate_hz: int
    channels: int
    mutes: tuple[Mute, ...] = ()


@dataclass(frozen=True, slots=True)
class Participant:
    """One stay of a user in the room."""

    user_id: str
    publish_session_id: str
    join_ns: int
    leave_ns: int | None
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """A file in a store, or on its way there. Numbers of the media are 0 before it is finished."""

    file_id: str
    container: str
    codec: str
    state: str
    object_key: str
    store: str
    url: str
    start_ns: int
    end_ns: int | None
    sample_rate_hz: int
    channels: int
    sample_count: int
    encoder_delay_samples: int
    size_bytes: int
    sha256: str
    expire_ns: int | None = None
    first_segment_id: int | None = None
    """Only of joined files: where the segments that are in it begin."""
    joined_segments: int | None = None
    """Only of joined files: how many segments are in it."""


@dataclass(frozen=True, slots=True)
class LastSequence:
    """The newest frame of a track that a segment, or one before it, has."""

    user_id: str
    publish_session_id: str
    track_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording without a break, in one file for each container."""

    segment_id: int
    start_ns: int
    end_ns: int | None
    interrupted: bool
    files: tuple[File, ...]
    statistics: Mapping[str, int] = field(default_factory=dict)
    """Counts of frames: `recorded`, `lost`, `duplicated`, `reordered`, `rejected`."""
    last_sequences: tuple[LastSequence, ...] = ()
    """Of those tracks that moved on since the segment before."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Media of a user that is missing."""

    user_id: str
    start_ns: int
    end_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """A segment that ended by a fault; `time_ns` is of the server's clock."""

    segment_id: int
    cause: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One output of the task; `start_ns` and `end_ns` are of the server's clock."""

    recording_id: str
    kind: str
    user_id: str
    start_ns: int
    end_ns: int | None
    segments: tuple[Segment, ...] = ()
    joined_files: tuple[File, ...] = ()
    gaps: tuple[Gap, ...] = ()
    interruptions: tuple[Interruption, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a task; `start_ns`, `stop_ns` and `complete_ns` are of the server's clock."""

    version: int
    service_version: str
    app_id: str
    room_id: str
    task_id: str
    client_task_id: str
    object_key: str
    """Of the manifest itself."""
    complete: bool
    """Whether nothing will come to it but what the library does: joining, deleting, retention."""
    state: str
    mode: str
    stop_reason: str | None
    labels: Mapping[str, str]
    start_ns: int
    stop_ns: int | None
    complete_ns: int | None
    output: Output
    room: Room
    scopes: tuple[Scope, ...]
    participants: tuple[Participant, ...]
    recordings: tuple[Recording, ...]
