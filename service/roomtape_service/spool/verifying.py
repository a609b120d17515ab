"""How much of a media file is what its worker wrote.

A checkpoint has the CRC-32 of the bytes that it speaks of, so the newest one whose sum is right says how far the file
can be trusted. Finishing writes the head of a file (WAV, MP3, M4A) or its last page (Ogg) anew: these bytes are
compared as they were before. The head needs no comparison, since finishing makes it out of nothing.
"""

import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from roomtape_service.recording.containers.aac_files import growing_m4a_head, m4a_format
from roomtape_service.recording.containers.mp3 import frame_format, growing_mp3_head
from roomtape_service.recording.containers.ogg import growing_ogg_tail
from roomtape_service.recording.containers.table import passes_packets
from roomtape_service.recording.containers.wav import growing_wav_head
from roomtape_service.recording.protocol import Container
from roomtape_service.spool.journal import Checkpoint, JournalHeader, MediaFile

__all__ = ["newest_held", "regular_size"]

_CHUNK_BYTES: Final = 1 << 20


def regular_size(path: Path) -> int | None:
    """Bytes of a regular file; None for anything else: links, folders, what is not there. Raises OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def newest_held(
    folder: Path, header: JournalHeader, index: int, checkpoints: Sequence[Checkpoint]
) -> Checkpoint | None:
    """The newest of the checkpoints whose bytes of the header's `index`-th file are as they were written.

    None if there is no such file, or not even the first checkpoint holds. Checkpoints without sums are believed by the
    file's size. Raises OSError.
    """
    path = folder / header.files[index].name
    size = regular_size(path)
    if size is None:
        return None
    within = [each for each in checkpoints if each.sizes[index] <= size]
    if not within or not within[-1].sums:
        return within[-1] if within else None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        file = _Written(fd, header, header.files[index])
        # The whole at once first: nearly always it is right.
        if file.sum_to(within[-1].sizes[index]) == within[-1].sums[index]:
            return within[-1]
        return _newest_by_steps(file, index, within)
    finally:
        os.close(fd)


def _newest_by_steps(file: "_Written", index: int, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """From the first checkpoint on: where the first sum is wrong, all after it are."""
    held: Checkpoint | None = None
    running, at = 0, 0
    for checkpoint in checkpoints:
        size, wanted = checkpoint.sizes[index], checkpoint.sums[index]
        running, at = file.sum_on(at, size, running), size
        if running == wanted:
            held = checkpoint
        elif file.sum_to(size) == wanted:
            # Only the last page of a file that was finished there is another.
            return checkpoint
        else:
            break
    return held


class _Written:
    """An open media file as it was before it was finished."""

    def __init__(self, fd: int, header: JournalHeader, file: MediaFile) -> None:
        rate, channels, container = header.rate_of(file), header.channels_of(file), file.container
        self._fd = fd
        self._is_ogg = container is Container.OGG
        match container:
            case Container.WAV:
                self._head = growing_wav_head(rate, channels)
            case Container.MP3:
                form = frame_format(rate, channels, header.bitrate)
                self._head = growing_mp3_head(form)
            case Container.M4A:
                passes = passes_packets(header.codec, container)
                self._head = growing_m4a_head(m4a_format(rate, channels, passes=passes))
            case Container.OGG | Container.AAC:
                self._head = b""

    def sum_to(self, size: int) -> int:
        """CRC-32 of the first `size` bytes, of a file that may have been finished there."""
        if not self._is_ogg:
            return self.sum_on(0, size, 0)
        try:
            at, page = growing_ogg_tail(self._fd, size)
        except ValueError:
            return self.sum_on(0, size, 0)
        return zlib.crc32(page, self.sum_on(0, at, 0))

    def sum_on(self, start: int, end: int, running: int) -> int:
        """Goes on with a sum from `start` to `end`."""
        head = self._head[start:end]
        running, at = zlib.crc32(head, running), start + len(head)
        while at < end:
            data = os.pread(self._fd, min(_CHUNK_BYTES, end - at), at)
            if not data:
                break
            running, at = zlib.crc32(data, running), at + len(data)
        return running
