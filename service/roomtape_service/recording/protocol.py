"""What a node and its workers say to each other over a Unix stream socket.

A message is a big-endian u32 with the length of the rest, a byte for its kind, and the payload:

- `C`, control: a JSON object whose `op` names one of the classes below (`RoomOpen` is `room_open`);
- `F`, frames (node to worker only): the track's handle as u32, the arrival time as i64, then a serialized
  `roomtape.v1.FrameBatch` exactly as it came from the publisher.

All times are room time in integer nanoseconds. Handles of rooms and tracks are chosen by the node, unique
for the life of the connection. The order of messages counts: what is said about a track holds for the frames
after it.

Sending frames again is harmless: a recording drops what it has, by its own sequence for each track. One that
resumes behind what others on the same worker have of a track gets the frames after its `sequence` sent
again.
"""

import asyncio
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Bye",
    "CompletedFile",
    "Container",
    "FrameStatistics",
    "Frames",
    "Gap",
    "GapReason",
    "Hello",
    "Message",
    "MessageDecoder",
    "NodeOp",
    "Op",
    "ProtocolError",
    "RecordingFailed",
    "RecordingKind",
    "RecordingStart",
    "RecordingStop",
    "RecordingStopped",
    "RecordingTracks",
    "Rejected",
    "Resume",
    "RoomClock",
    "RoomClose",
    "RoomOpen",
    "Safe",
    "SegmentCompleted",
    "SegmentStarted",
    "Shutdown",
    "StartedFile",
    "TrackBack",
    "TrackClose",
    "TrackCodec",
    "TrackLost",
    "TrackMute",
    "TrackOpen",
    "Warning",
    "WorkerOp",
    "encode",
    "frames_message",
    "read_worker_op",
]


class RoomClock(StrEnum):
    """What a room's time is made of."""

    ARRIVAL = "ARRIVAL"
    MEDIA = "MEDIA"


class TrackCodec(StrEnum):
    """How a track is encoded."""

    OPUS = "OPUS"
    PCM_S16LE = "PCM_S16LE"


class Container(StrEnum):
    """Kind of a file."""

    MP3 = "MP3"
    OGG = "OGG"
    WAV = "WAV"


class RecordingKind(StrEnum):
    """What a recording is of."""

    SINGLE = "SINGLE"
    MIXED = "MIXED"


class GapReason(StrEnum):
    """Why media is missing."""

    PUBLISHER_LOST = "PUBLISHER_LOST"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a recording stands with a track: it has every frame up to `sequence`; `offset_ns` added to a
    frame's media time gives its room time."""

    sequence: int
    offset_ns: int


# Node to worker.


@dataclass(frozen=True, slots=True)
class RoomOpen:
    """A room, before its tracks and recordings."""

    room: int
    clock: RoomClock
    epoch_ns: int
    """The room's creation: sample 0 of every position."""


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
    """Bits a second of MP3."""
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
class StartedFile:
    """A file that grows."""

    container: Container
    path: str


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
class CompletedFile:
    """A complete file of a segment; `sample_count` is what a decoder puts out, `encoder_delay` what one that
    can't read the file's tag puts out before it."""

    container: Container
    path: str
    size: int
    sha256: str
    encoder_delay: int
    sample_count: int


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """What became of a segment's frames; see roomtape.v1.FrameStatistics."""

    recorded: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    rejected: int = 0


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


@dataclass(frozen=True, slots=True)
class Frames:
    """A publisher's batch: `batch` is a serialized roomtape.v1.FrameBatch."""

    track: int
    arrival_ns: int
    batch: bytes


Message = Op | Frames


class ProtocolError(Exception):
    """Bytes that are no message of this protocol: node and worker are not of the same version, or one is
    broken."""


_LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">Ic")
_FRAMES_HEADER = struct.Struct(">IcIq")
_FRAMES_FIELDS = struct.Struct(">Iq")
_CONTROL_KIND = b"C"
_FRAMES_KIND = b"F"
# Publishers' batches are at most 4 MiB; nothing else is near that.
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024

_OPS: Mapping[str, type["DataclassInstance"]] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind
    for kind in (
        RoomOpen,
        RoomClose,
        TrackOpen,
        TrackMute,
        TrackLost,
        TrackBack,
        TrackClose,
        RecordingStart,
        RecordingTracks,
        RecordingStop,
        Shutdown,
        Hello,
        SegmentStarted,
        SegmentCompleted,
        RecordingStopped,
        Safe,
        Rejected,
        Gap,
        Warning,
        RecordingFailed,
        Bye,
    )
}
_NAMES: Mapping[type, str] = {kind: op for op, kind in _OPS.items()}


def encode(op: Op) -> bytes:
    """The whole message, ready to be written."""
    fields = cast("dict[str, object]", to_plain(op))
    payload = json.dumps({"op": _NAMES[type(op)], **fields}, separators=(",", ":")).encode()
    return _HEADER.pack(1 + len(payload), _CONTROL_KIND) + payload


def frames_message(track: int, arrival_ns: int, batch_bytes: bytes) -> bytes:
    """The whole message for a serialized FrameBatch, ready to be written."""
    return (
        _FRAMES_HEADER.pack(1 + _FRAMES_FIELDS.size + len(batch_bytes), _FRAMES_KIND, track, arrival_ns)
        + batch_bytes
    )


class MessageDecoder:
    """Cuts a stream of bytes into messages; knows nothing of sockets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes, in order; consume it before feeding again.

        Raises ProtocolError.
        """
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _LENGTH.size:
            length = _length(data, at)
            start = at + _LENGTH.size
            if end - start < length:
                break
            at = start + length
            yield _message(data, start, at)
        self._rest = data[at:]


def _message(data: bytes, start: int, end: int) -> Message:
    kind = data[start : start + 1]
    if kind == _FRAMES_KIND and end - start > _FRAMES_FIELDS.size:
        track, arrival_ns = _FRAMES_FIELDS.unpack_from(data, start + 1)
        return Frames(track, arrival_ns, data[start + 1 + _FRAMES_FIELDS.size : end])
    if kind == _CONTROL_KIND:
        return _control(data[start + 1 : end])
    raise ProtocolError(f"a message of kind {kind!r}")


def _control(payload: bytes) -> Op:
    try:
        fields = json.loads(payload)
        kind = _OPS[fields.pop("op")]
        return cast(Op, from_plain(kind, fields))
    except (ValueError, KeyError, AttributeError, PlainDataError) as error:
        raise ProtocolError(f"a control message that can't be read: {error}") from error


async def read_worker_op(reader: asyncio.StreamReader) -> WorkerOp | None:
    """The next message of a worker, None when it closed the connection.

    Raises ProtocolError, and asyncio.IncompleteReadError when the connection ended inside a message.
    """
    try:
        header = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise
    message = await reader.readexactly(_length(header, 0))
    op = _message(message, 0, len(message))
    if not isinstance(op, WorkerOp):
        raise ProtocolError(f"a worker does not send {type(op).__name__}")
    return op


def _length(data: bytes, at: int) -> int:
    length: int = _LENGTH.unpack_from(data, at)[0]
    if not 0 < length <= _MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a message of {length} bytes")
    return length
