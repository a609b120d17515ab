"""What a node and its workers say to each other over a Unix stream socket.

A message is a big-endian u32 with the length of the rest, a byte for its kind, and the payload:

- `C`, control: a JSON object whose `op` names one of the classes in `ops` (`RoomOpen` is `room_open`);
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
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from roomtape_service.recording.ops import (
    BEFORE_ALL_NS,
    Bye,
    Gap,
    Hello,
    NodeOp,
    Op,
    RecordingFailed,
    RecordingStart,
    RecordingStop,
    RecordingStopped,
    RecordingTracks,
    Rejected,
    RoomClose,
    RoomOpen,
    Safe,
    SegmentCompleted,
    SegmentGrown,
    SegmentStarted,
    Shutdown,
    TrackBack,
    TrackClose,
    TrackLost,
    TrackMute,
    TrackOpen,
    Warning,
    WorkerOp,
)
from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain
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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "BEFORE_ALL_NS",
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
    "SegmentGrown",
    "SegmentStarted",
    "Shutdown",
    "SpoolTrouble",
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


class Frames(NamedTuple):
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
    re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind for kind in get_args(Op)
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
