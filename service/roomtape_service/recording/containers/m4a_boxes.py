"""Boxes of MP4 with one track of AAC (ISO/IEC 14496-12 and -14).

A file has two shapes. While it grows it is fragmented: its head says that nothing is known of what follows, and each
fragment says where it lies in time. When it is finished it is an ordinary file: a table of all samples at its end, and
one `mdat` box around everything between.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from roomtape_service.recording.aac import UNIT_SAMPLES, audio_specific_config

__all__ = [
    "FRAGMENT_HEAD_BYTES",
    "Fragment",
    "M4aFormat",
    "Placed",
    "finished_head",
    "finished_index",
    "finished_size",
    "fragment",
    "fragment_bytes",
    "growing_head",
    "read_fragment",
]

FRAGMENT_HEAD_BYTES: Final = 8
"""What `fragment_bytes` has to know of a fragment."""

_TRACK = 1
_WHOLE = 0x0001_0000  # 1.0 in 16.16
_FULL_VOLUME = 0x0100  # 1.0 in 8.8
_MATRIX = struct.pack(">9I", _WHOLE, 0, 0, 0, _WHOLE, 0, 0, 0, 0x4000_0000)
_UNDETERMINED = 0x55C4  # "und", three letters of five bits
_FLAGS_ENABLED_IN_MOVIE = 0x3
_FLAG_SAME_FILE = 0x1
_OBJECT_MPEG4_AUDIO, _STREAM_AUDIO = 0x40, 0x05 << 2 | 1
_SAMPLE_BITS = 16

_LARGE_SIZE = 1
_MDAT_HEAD = struct.Struct(">I4sQ")

_BASE_IS_MOOF = 0x02_0000
_HAS_OFFSET, _HAS_DURATIONS, _HAS_SIZES = 0x1, 0x100, 0x200
_MOOF = struct.Struct(">I4sI4sII")
_TRAF = struct.Struct(">I4sI4sIII4sIQ")
_TRUN = struct.Struct(">I4sIII")
_BOX = struct.Struct(">I4s")
_SIZE_BYTES = 4


class Placed(NamedTuple):
    """An access unit, and where it begins: samples of the medium, from its first unit on."""

    data: bytes
    at: int


@dataclass(frozen=True, slots=True)
class M4aFormat:
    """What is known of a file from its start. A player leaves out the first `delay` samples of the medium."""

    rate: int
    channels: int
    delay: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a fragment says of its units."""

    start: int
    """Where the first begins, in samples of the medium."""
    durations: Sequence[int]
    """Of each but the last, whose end only the next fragment tells; empty if all are of the usual length."""
    sizes: bytes
    """How many bytes each has, as numbers of four bytes."""
    data_bytes: int
    """How many bytes they have together."""

    @property
    def starts(self) -> list[int]:
        """Where each unit begins."""
        durations = self.durations or [UNIT_SAMPLES] * (self.count - 1)
        return list(accumulate(durations, initial=self.start))

    @property
    def lengths(self) -> Sequence[int]:
        """How many bytes each unit has."""
        return _numbers(self.sizes)

    @property
    def count(self) -> int:
        """How many units."""
        return len(self.sizes) // _SIZE_BYTES

    @property
    def last(self) -> int:
        """Where the last unit begins."""
        return self.start + (sum(self.durations) or (self.count - 1) * UNIT_SAMPLES)


def growing_head(form: M4aFormat) -> bytes:
    """What comes before the fragments of a file that is not finished."""
    defaults = struct.pack(">IIIII", _TRACK, 1, UNIT_SAMPLES, 0, 0)
    tables = b"".join(_full(name, b"\0" * size) for name, size in _EMPTY_TABLES)
    movie = _movie(form, 0, 0, tables, _box(b"mvex", _full(b"trex", defaults)))
    # The rest of the finished head's `mdat`, with the first bytes of `moov`.
    return _FILE_TYPE + _box(b"free") + movie


def finished_head(size: int) -> bytes:
    """What the file begins with when it is finished: a box around all that follows of its first `size` bytes."""
    return _FILE_TYPE + _MDAT_HEAD.pack(_LARGE_SIZE, b"mdat", size - len(_FILE_TYPE))


def finished_size(head: bytes) -> int:
    """Where the fragments end of a file that begins with `head`, as long as `growing_head`. Raises ValueError."""
    at = len(_FILE_TYPE)
    if len(head) < at + _MDAT_HEAD.size or not head.startswith(_FILE_TYPE):
        raise ValueError("no M4A file")
    mark, kind, size = _MDAT_HEAD.unpack_from(head, at)
    if (mark, kind) != (_LARGE_SIZE, b"mdat"):
        raise ValueError("an M4A file that was not finished")
    return at + int(size)


def finished_index(form: M4aFormat, samples: int, fragments: Sequence[tuple[int, Fragment]]) -> bytes:
    """The table at the end of a file that plays `samples`; fragments come with where their bytes begin."""
    described = [each for _, each in fragments]
    durations = _Runs()
    for each, after in pairwise([*described, None]):
        assert each is not None
        if each.durations:
            durations.extend(each.durations)
        elif each.count > 1:
            durations.add(UNIT_SAMPLES, each.count - 1)
        durations.add((samples + form.delay if after is None else after.start) - each.last)
    chunks = _Runs()
    chunks.extend([each.count for each in described])
    runs, first = [], 1
    for value, count in chunks.runs:
        runs.append(struct.pack(">III", first, value, 1))
        first += count
    sizes = b"".join(each.sizes for each in described)
    places = struct.pack(f">{len(fragments)}Q", *(at for at, _ in fragments))
    tables = b"".join(
        (
            _table(b"stts", [struct.pack(">II", count, value) for value, count in durations.runs]),
            _table(b"stsc", runs),
            _full(b"stsz", struct.pack(">II", 0, len(sizes) // _SIZE_BYTES) + sizes),
            _full(b"co64", struct.pack(">I", len(fragments)) + places),
        )
    )
    return _movie(form, samples, samples + form.delay, tables, b"")


def fragment(units: Sequence[Placed], number: int) -> bytes:
    """The next fragment, which has at least one unit; numbers count from 1."""
    starts = [unit.at for unit in units]
    durations = [
        end - start for start, end in zip(starts, [*starts[1:], starts[-1] + UNIT_SAMPLES], strict=True)
    ]
    sizes = [len(unit.data) for unit in units]
    flags = _HAS_OFFSET | _HAS_SIZES
    entries: list[int] = sizes
    if any(duration != UNIT_SAMPLES for duration in durations):
        flags |= _HAS_DURATIONS
        entries = [value for pair in zip(durations, sizes, strict=True) for value in pair]
    run_bytes = _TRUN.size + 4 * len(entries)
    track_bytes = _TRAF.size + run_bytes
    total = _MOOF.size + track_bytes
    return b"".join(
        (
            _MOOF.pack(total, b"moof", 16, b"mfhd", 0, number),
            _TRAF.pack(
                track_bytes, b"traf", 16, b"tfhd", _BASE_IS_MOOF, _TRACK, 20, b"tfdt", 1 << 24, starts[0]
            ),
            _TRUN.pack(run_bytes, b"trun", flags, len(units), total + _BOX.size),
            struct.pack(f">{len(entries)}I", *entries),
            _BOX.pack(_BOX.size + sum(sizes), b"mdat"),
            *(unit.data for unit in units),
        )
    )


def fragment_bytes(head: bytes) -> int:
    """How long the description of a fragment is that begins with `head`; its units follow.

    Raises ValueError if none does.
    """
    if len(head) < _BOX.size:
        raise ValueError("a fragment that is cut off")
    size, kind = _BOX.unpack_from(head)
    if kind != b"moof":
        raise ValueError(f"no fragment: {kind!r}")
    return int(size) + _BOX.size


def read_fragment(description: bytes) -> Fragment:
    """A fragment as `fragment` wrote it, without its units. Raises ValueError."""
    at = _MOOF.size + _TRAF.size
    try:
        *_, start = _TRAF.unpack_from(description, _MOOF.size)
        _, kind, flags, count, _ = _TRUN.unpack_from(description, at)
    except struct.error as error:
        raise ValueError(f"a fragment that is cut off: {error}") from error
    has_durations = bool(flags & _HAS_DURATIONS)
    entries = description[at + _TRUN.size : at + _TRUN.size + count * _SIZE_BYTES * (1 + has_durations)]
    if kind != b"trun" or not count or len(description) != at + _TRUN.size + len(entries) + _BOX.size:
        raise ValueError("a fragment of another kind")
    data_bytes = _BOX.unpack_from(description, len(description) - _BOX.size)[0] - _BOX.size
    if not has_durations:
        return Fragment(start, (), entries, data_bytes)
    numbers = _numbers(entries)
    return Fragment(start, numbers[: 2 * count - 2 : 2].tolist(), _bytes(numbers[1::2]), data_bytes)


class _Runs:
    """Numbers in a row, and how often each stands there."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    def add(self, value: int, count: int = 1) -> None:
        if self.runs and self.runs[-1][0] == value:
            count += self.runs.pop()[1]
        self.runs.append((value, count))

    def extend(self, values: Sequence[int]) -> None:
        for value in values:
            self.add(value)


def _numbers(data: bytes) -> "array[int]":
    numbers = array("I", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _bytes(numbers: "array[int]") -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def _movie(form: M4aFormat, played: int, media: int, tables: bytes, extension: bytes) -> bytes:
    """`played` and `media` are 0 while they are not known."""
    rate = form.rate
    movie_head = struct.pack(">QQIQIH10x", 0, 0, rate, played, _WHOLE, _FULL_VOLUME) + _MATRIX + bytes(24)
    movie_head += struct.pack(">I", _TRACK + 1)
    track_head = (
        struct.pack(">QQI4xQ8xHHH2x", 0, 0, _TRACK, played, 0, 0, _FULL_VOLUME)
        + _MATRIX
        + struct.pack(">II", 0, 0)
    )
    edit = struct.pack(">IQqI", 1, played, form.delay, _WHOLE)
    media_head = struct.pack(">QQIQHH", 0, 0, rate, media, _UNDETERMINED, 0)
    handler = struct.pack(">4x4s12x", b"soun") + b"roomtape\0"
    source = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", _FLAG_SAME_FILE)))
    information = _full(b"smhd", bytes(4)) + source + _box(b"stbl", _description(form) + tables)
    medium = _full(b"mdhd", media_head, version=1) + _full(b"hdlr", handler) + _box(b"minf", information)
    track = (
        _full(b"tkhd", track_head, _FLAGS_ENABLED_IN_MOVIE, version=1)
        + _box(b"edts", _full(b"elst", edit, version=1))
        + _box(b"mdia", medium)
    )
    return _box(b"moov", _full(b"mvhd", movie_head, version=1) + _box(b"trak", track) + extension)


def _description(form: M4aFormat) -> bytes:
    config = _descriptor(5, audio_specific_config(form.rate, form.channels))
    decoder = _descriptor(4, struct.pack(">BB3xII", _OBJECT_MPEG4_AUDIO, _STREAM_AUDIO, 0, 0) + config)
    stream = _descriptor(3, struct.pack(">HB", 0, 0) + decoder + _descriptor(6, b"\x02"))
    entry = struct.pack(">6xH8xHH4xI", 1, form.channels, _SAMPLE_BITS, form.rate << 16)
    return _full(b"stsd", struct.pack(">I", 1) + _box(b"mp4a", entry + _full(b"esds", stream)))


def _descriptor(tag: int, body: bytes) -> bytes:
    return bytes((tag, len(body))) + body


def _box(name: bytes, body: bytes = b"") -> bytes:
    return _BOX.pack(_BOX.size + len(body), name) + body


def _full(name: bytes, body: bytes, flags: int = 0, *, version: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags) + body)


def _table(name: bytes, entries: Sequence[bytes]) -> bytes:
    return _full(name, struct.pack(">I", len(entries)) + b"".join(entries))


_FILE_TYPE = _box(b"ftyp", b"M4A " + struct.pack(">I", 0x200) + b"M4A isomiso6mp42")
_EMPTY_TABLES = ((b"stts", 4), (b"stsc", 4), (b"stsz", 8), (b"stco", 4))
