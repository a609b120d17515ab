"""WAV with 16-bit PCM. While it grows its header gives no length, which readers take as "to the end of the
file"."""

import os
import struct

from roomtape_service.recording.containers.output import OutputFile
from roomtape_service.recording.protocol import Container

__all__ = ["HEADER_BYTES", "WAV_BYTES_MAX", "WavWriter", "finish_wav", "growing_wav_head"]

HEADER_BYTES = 44
WAV_BYTES_MAX = 0xFFFF_FFFF
"""RIFF counts bytes in 32 bits."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNKNOWN = 0xFFFF_FFFF
_FORMAT_PCM = 1
_SAMPLE_BYTES = 2


class WavWriter:
    """See ContainerWriter."""

    container = Container.WAV

    def __init__(self, path: str, rate: int, channels: int) -> None:
        self.file = OutputFile(path)
        self._block = _SAMPLE_BYTES * channels
        self._pending = [_header(rate, channels, None)]
        self._added = 0

    @property
    def ready(self) -> int:
        return self._added

    def add_pcm(self, pcm: bytes) -> None:
        self._pending.append(pcm)
        self._added += len(pcm) // self._block

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        raise TypeError("WAV takes PCM")

    def add_silence(self, samples: int) -> None:
        self.add_pcm(bytes(samples * self._block))

    def cut(self, samples: int) -> int:
        if self._pending:
            self.file.append(b"".join(self._pending))
            self._pending.clear()
        return HEADER_BYTES + samples * self._block

    def end(self) -> None:
        pass


def finish_wav(path: str, size: int, samples: int, rate: int, channels: int) -> int:
    """Cuts a file to `size` and gives its header the length. Idempotent. Returns the samples that it plays.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, _header(rate, channels, samples * _SAMPLE_BYTES * channels), 0)
    finally:
        os.close(fd)
    return samples


def growing_wav_head(rate: int, channels: int) -> bytes:
    """The header of a file that is not finished."""
    return _header(rate, channels, None)


def _header(rate: int, channels: int, data_bytes: int | None) -> bytes:
    block = _SAMPLE_BYTES * channels
    riff_size = _UNKNOWN if data_bytes is None else data_bytes + HEADER_BYTES - 8
    data_size = _UNKNOWN if data_bytes is None else data_bytes
    return _HEADER.pack(
        *(b"RIFF", riff_size, b"WAVE", b"fmt ", 16, _FORMAT_PCM, channels),
        *(rate, rate * block, block, 8 * _SAMPLE_BYTES, b"data", data_size),
    )
