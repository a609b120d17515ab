"""What is held of publishers who left: on disk, so that their goodbye waits for nobody.

On a MEDIA clock a mix has the last of a leaver only when the others have come as far, which may be never. Until then
it is a file below the spool, one for each track, which is whole or not there. A node that starts anew takes it up.
"""

import hashlib
import json
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from roomtape_service import failpoints
from roomtape_service.recording import protocol
from roomtape_service.recording.front.held import HeldBatch
from roomtape_service.recording.front.track import FeedTrack, TrackFacts
from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain
from roomtape_service.spool.aside import set_aside

__all__ = ["DepartedTrack", "departed_track", "keep_departed", "load_departed"]

_FOLDER = ".departed"
"""Recovery looks into no folder of such a name."""
_SUFFIX = ".frames"
_UNFINISHED = ".unfinished"
_FILE_MODE = 0o640
_RECORD = struct.Struct(">qqqI")
_NOT_MUTED = -1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Header:
    room_key: str
    recordings: tuple[str, ...]
    acknowledged: int
    closed_at_ns: int
    key: str
    user_id: str
    codec: protocol.TrackCodec
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class DepartedTrack:
    """A track whose participant left, with the frames that some of its recordings may lack."""

    room_key: str
    facts: TrackFacts
    recordings: tuple[str, ...]
    acknowledged: int
    closed_at_ns: int
    batches: tuple[HeldBatch, ...]


def departed_track(room_key: str, track: FeedTrack, closed_at_ns: int) -> DepartedTrack:
    """What is held of a track now."""
    return DepartedTrack(
        room_key=room_key,
        facts=track.facts,
        recordings=tuple(track.recordings),
        acknowledged=track.acknowledged,
        closed_at_ns=closed_at_ns,
        batches=tuple(track.held),
    )


def keep_departed(spool_root: Path, track: DepartedTrack, *, waits_for_disk: bool) -> Path:
    """Writes a track; returns the file when it is whole. Blocks; raises OSError."""
    facts = track.facts
    header = _Header(
        room_key=track.room_key,
        recordings=track.recordings,
        acknowledged=track.acknowledged,
        closed_at_ns=track.closed_at_ns,
        key=facts.key,
        user_id=facts.user_id,
        codec=facts.codec,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
    )
    name = hashlib.sha256(f"{track.room_key} {facts.key}".encode()).hexdigest()
    path = spool_root / _FOLDER / f"{name}{_SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(_UNFINISHED)
    with open(unfinished, "wb", opener=_opener) as file:
        file.write(_line(header))
        for each in track.batches:
            muted_at_ns = _NOT_MUTED if each.muted_at_ns is None else each.muted_at_ns
            file.write(_RECORD.pack(each.sequence, each.arrival_ns, muted_at_ns, len(each.batch)))
            file.write(each.batch)
        if waits_for_disk:
            file.flush()
            os.fdatasync(file.fileno())
    failpoints.hit("departed.keep")
    unfinished.rename(path)
    return path


def load_departed(spool_root: Path) -> list[tuple[Path, DepartedTrack]]:
    """All files that were kept. One that can't be read is set aside. Blocks."""
    folder = spool_root / _FOLDER
    found = []
    for path in folder.glob(f"*{_UNFINISHED}"):
        with suppress(OSError):
            failpoints.hit("departed.forget")
            path.unlink()
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            found.append((path, _read(path)))
        except (OSError, ValueError, struct.error) as error:
            set_aside(spool_root, path, f"it can't be read: {error}")
    return found


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, _FILE_MODE)


def _line(header: _Header) -> bytes:
    return json.dumps(to_plain(header)).encode() + b"\n"


def _read(path: Path) -> DepartedTrack:
    line, newline, rest = path.read_bytes().partition(b"\n")
    if not newline:
        raise PlainDataError("it has no header")
    header = from_plain(_Header, json.loads(line))
    batches = []
    while rest:
        sequence, arrival_ns, muted_at_ns, size = _RECORD.unpack_from(rest)
        end = _RECORD.size + size
        if len(rest) < end:
            raise PlainDataError("it ends within a batch")
        muted = None if muted_at_ns == _NOT_MUTED else muted_at_ns
        batches.append(HeldBatch(sequence, arrival_ns, rest[_RECORD.size : end], muted))
        rest = rest[end:]
    facts = TrackFacts(header.key, header.user_id, header.codec, header.sample_rate, header.channels)
    return DepartedTrack(
        room_key=header.room_key,
        facts=facts,
        recordings=header.recordings,
        acknowledged=header.acknowledged,
        closed_at_ns=header.closed_at_ns,
        batches=tuple(batches),
    )
