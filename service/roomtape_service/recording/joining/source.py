"""The sources of a join as they come through the pipe, one after the other, checked on their way."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from roomtape_service.recording.joining.job import JoinSource

__all__ = ["Source", "SourceDiffers", "sources_of"]

_CHUNK_BYTES = 1 << 20


class SourceDiffers(Exception):
    """A source is not what was recorded; its index and what is wrong with it."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class Source:
    """One source; what is read of it is taken from the pipe. All methods raise EOFError when the pipe ends early."""

    def __init__(self, stream: BinaryIO, index: int, what: JoinSource) -> None:
        self.what = what
        self.left_bytes = what.size_bytes
        self._stream = stream
        self._index = index
        self._digest = hashlib.sha256()

    def read(self, size: int = _CHUNK_BYTES) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        data = self._stream.read(min(size, self.left_bytes))
        if len(data) < min(size, self.left_bytes):
            raise EOFError("the node is gone")
        self.left_bytes -= len(data)
        self._digest.update(data)
        return data

    def differs(self, message: str) -> SourceDiffers:
        """To be raised: what is wrong with it."""
        return SourceDiffers(self._index, message)

    def finish(self) -> None:
        """Reads what is left, and compares. Raises SourceDiffers."""
        while self.left_bytes:
            self.read()
        if self._digest.hexdigest() != self.what.sha256:
            raise self.differs("its SHA-256 is not the recorded one")


def sources_of(stream: BinaryIO, sources: Sequence[JoinSource]) -> Iterator[Source]:
    """One after the other; each is finished before the next. Raises SourceDiffers."""
    for index, what in enumerate(sources):
        source = Source(stream, index, what)
        yield source
        source.finish()
