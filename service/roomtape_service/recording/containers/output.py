"""What the containers' writers have in common."""

import os
import zlib
from typing import Protocol

from roomtape_service.recording.protocol import Container

__all__ = ["ContainerWriter", "OutputFile"]

_MODE = 0o640


class OutputFile:
    """A file that is only appended to, unbuffered: what `append` returned from is the kernel's.

    All methods raise OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        # What was appended beyond the bytes that are summed up.
        self._rest: list[bytes] = []
        self._summed = 0
        self._sum = 0

    def append(self, data: bytes) -> None:
        """Writes all of `data` at the end."""
        rest = memoryview(data)
        while rest:
            written = os.write(self._fd, rest)
            self.size += written
            rest = rest[written:]
        self._rest.append(data)

    def checksum(self, size: int) -> int:
        """CRC-32 of the first `size` bytes as they were appended; `size` is never less than at the call before."""
        rest = b"".join(self._rest)
        count = size - self._summed
        self._sum = zlib.crc32(memoryview(rest)[:count], self._sum)
        self._summed = size
        self._rest = [rest[count:]] if count < len(rest) else []
        return self._sum

    def sync(self) -> None:
        """Waits until the disk has it."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ContainerWriter(Protocol):
    """A file of a segment. Counts are samples for each channel since the segment's start.

    What is added is kept until `cut`; what can be cut may lag behind what was added, since encoders look
    ahead. Adding and cutting raise OSError when the file can't be written.
    """

    container: Container
    file: OutputFile

    @property
    def ready(self) -> int:
        """Up to where `cut` can go now."""
        ...

    def add_pcm(self, pcm: bytes) -> None:
        """The next samples, signed 16 bit, interleaved. Raises TypeError if the writer takes packets."""
        ...

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """The next packet, which plays for `duration` in the place of `samples`. Raises TypeError if the writer takes
        PCM."""
        ...

    def add_silence(self, samples: int) -> None:
        """Silence that is as long."""
        ...

    def cut(self, samples: int) -> int:
        """Writes what is needed to play up to `samples`, and returns the size of the file that holds exactly
        that.

        `samples` lies at a boundary of what was added, or in silence.
        """
        ...

    def end(self) -> None:
        """Nothing will be added: everything is ready to be cut."""
        ...
