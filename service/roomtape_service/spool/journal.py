"""A segment's journal: one append-only file beside the segment's media files.

It begins with a header, goes on with checkpoints, and ends with a closing record once the files are
finished. A line is a record: the CRC-32 of the rest in hexadecimal, a space, and a JSON object with the
record's kind in `record`. A checkpoint is written after the media bytes that it speaks of, so whatever line
of the file survives is true, whatever became of those around it.
"""

import errno
import functools
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain
from roomtape_service.recording.protocol import (
    Container,
    FrameStatistics,
    RecordingKind,
    Resume,
    SegmentCompleted,
    TrackCodec,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "EXTENSION",
    "Checkpoint",
    "ForeignJournal",
    "JournalContent",
    "JournalHeader",
    "JournalWriter",
    "MediaFile",
    "encode_record",
    "read_closing",
    "read_journal",
]

EXTENSION = "journal"
_MODE = 0o640
_VERSION = 1
_HEADER_BYTES_MAX = 1 << 20
"""Of a header with hundreds of tracks."""
_TAIL_BYTES = 64 * 1024
"""Holds the closing record and the checkpoint before it, of all but the largest rooms."""


class ForeignJournal(ValueError):
    """A file that is no journal of this version, or one that names files outside of its folder."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of the segment, in the journal's folder."""

    container: Container
    name: str
    sample_rate: int = 0
    """0 in both: as the segment."""
    channels: int = 0


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
    codec: TrackCodec = TrackCodec.PCM_S16LE
    """What came. Journals that were written before there was AAC do not say it, nor does it matter to their files."""

    def rate_of(self, file: MediaFile) -> int:
        """Samples a second of a file."""
        return file.sample_rate or self.sample_rate

    def channels_of(self, file: MediaFile) -> int:
        """Channels of a file."""
        return file.channels or self.channels

    def samples_of(self, file: MediaFile, samples: int) -> int:
        """How many samples of a file are the first `samples` of the segment."""
        return samples * self.rate_of(file) // self.sample_rate


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
    """All of them, or the newest alone where the closing record is what matters."""
    closed: SegmentCompleted | None = None
    whole_bytes: int = 0
    """Where the last whole line ends."""


def read_journal(path: Path) -> JournalContent | None:
    """Reads what is whole of a journal; None if not even its header is.

    Raises OSError, and ForeignJournal.
    """
    content: JournalContent | None = None
    at = 0
    with open(path, "rb", opener=_no_link) as file:
        for line in file:
            at += len(line)
            record = _parse(line)
            if content is None:
                if not isinstance(record, JournalHeader):
                    return None
                content = JournalContent(_checked(record))
            elif isinstance(record, Checkpoint):
                if len(record.sizes) != len(content.header.files):
                    continue
                content.checkpoints.append(record)
            elif isinstance(record, SegmentCompleted):
                content.closed = record
            else:
                continue
            content.whole_bytes = at
    return content


def read_closing(path: Path) -> JournalContent | None:
    """Reads of a journal that ends with a closing record this, its header and its newest checkpoint.

    None if it does not, or has to be read as a whole. Raises OSError, and ForeignJournal.
    """
    with open(path, "rb", opener=_no_link) as file:
        header = _parse(file.readline(_HEADER_BYTES_MAX))
        if not isinstance(header, JournalHeader):
            return None
        first, size = file.tell(), file.seek(0, os.SEEK_END)
        start = max(first, size - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    content = JournalContent(_checked(header), whole_bytes=size)
    for line in reversed(lines):
        record = _parse(line)
        if isinstance(record, Checkpoint) and content.closed is not None:
            content.checkpoints = [record]
            return content
        if not isinstance(record, SegmentCompleted):
            return None
        content.closed = content.closed or record
    return None


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _checked(header: JournalHeader) -> JournalHeader:
    if header.version != _VERSION:
        raise ForeignJournal(f"a journal of version {header.version}")
    for file in header.files:
        if os.path.basename(file.name) != file.name or file.name in ("", ".", ".."):
            raise ForeignJournal(f"a journal that names {file.name!r}")
    return header


def _parse(line: bytes) -> JournalHeader | Checkpoint | SegmentCompleted | None:
    if not line.endswith(b"\n"):
        return None
    try:
        crc, payload = line[:-1].split(b" ", 1)
        if int(crc, 16) != zlib.crc32(payload):
            return None
        fields = json.loads(payload)
        kind = _RECORDS[fields.pop("record")]
        if kind is Checkpoint:
            return _checkpoint(fields)
        return cast("JournalHeader | SegmentCompleted", from_plain(kind, fields))
    except (ValueError, KeyError, TypeError, AttributeError, PlainDataError):
        return None


def _checkpoint(fields: "dict[str, Any]") -> Checkpoint:
    """What the general way gives, of which a long segment has ten thousands."""
    return Checkpoint(
        samples=fields["samples"],
        sizes=tuple(fields["sizes"]),
        resume={key: Resume(each["sequence"], each["offset_ns"]) for key, each in fields["resume"].items()},
        statistics=FrameStatistics(**fields["statistics"]),
        is_last=fields["is_last"],
        sums=tuple(fields.get("sums", ())),
    )
