"""A segment's journal: one append-only file beside the segment's media files.

It begins with a header, goes on with checkpoints, and ends with a closing record once the files are
finished. A line is a record: the CRC-32 of the rest in hexadecimal, a space, and a JSON object with the
record's kind in `record`. A checkpoint is written after the media bytes that it speaks of, so whatever of
the file survives is true: reading stops at the first line that is not whole.
"""

import errno
import functools
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain
from roomtape_service.recording.protocol import (
    Container,
    FrameStatistics,
    RecordingKind,
    Resume,
    SegmentCompleted,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "EXTENSION",
    "Checkpoint",
    "JournalContent",
    "JournalHeader",
    "JournalWriter",
    "MediaFile",
    "encode_record",
    "read_journal",
]

EXTENSION = "journal"
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of the segment, in the journal's folder."""

    container: Container
    name: str


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """What does not change while a segment grows. Its first sample lies `start` samples after `epoch_ns`."""

    recording_id: str
    task_id: str
    kind: RecordingKind
    segment: int
    epoch_ns: int
    start: int
    sample_rate: int
    channels: int
    bitrate: int
    files: tuple[MediaFile, ...]
    resume: Mapping[str, Resume] = field(default_factory=dict)
    """Where the recording stood with its tracks before the segment."""
    version: int = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files hold the first `samples`, in as many bytes as `sizes` says in the header's order."""

    samples: int
    sizes: tuple[int, ...]
    resume: Mapping[str, Resume]
    """Of the tracks that changed since the checkpoint before."""
    statistics: FrameStatistics
    is_last: bool = False
    """Whether the segment ends here by the rules, and not because its worker did."""
    sums: tuple[int, ...] = ()
    """CRC-32 of that many bytes of each file, as they were written: finishing changes some at either end."""


_RECORDS: Mapping[str, type["DataclassInstance"]] = {
    "header": JournalHeader,
    "checkpoint": Checkpoint,
    "closed": SegmentCompleted,
}
_NAMES = {kind: name for name, kind in _RECORDS.items()}


class JournalWriter:
    """Appends to a journal, unbuffered. All methods raise OSError."""

    def __init__(self, path: str, whole_bytes: int = 0) -> None:
        """Makes a journal, or goes on with one after its `whole_bytes`."""
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        self._size = whole_bytes
        os.ftruncate(self._fd, whole_bytes)

    def append(self, record: JournalHeader | Checkpoint | SegmentCompleted) -> None:
        """Writes a record; when this returns, it is the kernel's."""
        line = encode_record(record)
        try:
            written = os.write(self._fd, line)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        if written != len(line):
            # A torn line would hide every line after it.
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self._size += written

    def sync(self) -> None:
        """Waits until the disk has it."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def encode_record(record: JournalHeader | Checkpoint | SegmentCompleted) -> bytes:
    """The line of a record."""
    if isinstance(record, Checkpoint):
        payload = _checkpoint_payload(record)
    else:
        fields = cast("dict[str, object]", to_plain(record))
        payload = json.dumps({"record": _NAMES[type(record)], **fields}, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def _checkpoint_payload(record: Checkpoint) -> bytes:
    """What the general way gives, for the one record that is written four times a second for each recording."""
    sizes = ",".join(map(str, record.sizes))
    resume = ",".join(
        f'{_quoted(key)}:{{"sequence":{each.sequence},"offset_ns":{each.offset_ns}}}'
        for key, each in record.resume.items()
    )
    counts = record.statistics
    return (
        f'{{"record":"checkpoint","samples":{record.samples},"sizes":[{sizes}],"resume":{{{resume}}},'
        f'"statistics":{{"recorded":{counts.recorded},"lost":{counts.lost},"duplicated":{counts.duplicated},'
        f'"reordered":{counts.reordered},"rejected":{counts.rejected}}},'
        f'"is_last":{"true" if record.is_last else "false"},"sums":[{",".join(map(str, record.sums))}]}}'
    ).encode()


@functools.lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(text)


@dataclass(slots=True)
class JournalContent:
    """What a journal says."""

    header: JournalHeader
    checkpoints: list[Checkpoint] = field(default_factory=list)
    closed: SegmentCompleted | None = None
    whole_bytes: int = 0
    """Where the last whole line ends."""


def read_journal(path: Path) -> JournalContent | None:
    """Reads what is whole of a journal; None if not even its header is. Raises OSError."""
    content: JournalContent | None = None
    for line in path.read_bytes().splitlines(keepends=True):
        record = _parse(line)
        if content is None:
            if not isinstance(record, JournalHeader):
                return None
            content = JournalContent(record)
        elif isinstance(record, Checkpoint):
            content.checkpoints.append(record)
        elif isinstance(record, SegmentCompleted):
            content.closed = record
        else:
            break
        content.whole_bytes += len(line)
    return content


def _parse(line: bytes) -> JournalHeader | Checkpoint | SegmentCompleted | None:
    if not line.endswith(b"\n"):
        return None
    try:
        crc, payload = line[:-1].split(b" ", 1)
        if int(crc, 16) != zlib.crc32(payload):
            return None
        fields = json.loads(payload)
        kind = _RECORDS[fields.pop("record")]
        return cast("JournalHeader | Checkpoint | SegmentCompleted", from_plain(kind, fields))
    except (ValueError, KeyError, AttributeError, PlainDataError):
        return None
