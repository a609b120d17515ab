"""Bodies of requests as they go to S3 servers.

Of an `io.BytesIO` aiohttp makes a second copy in whole before it sends the first byte, on the event loop and beyond the
budget of memory.
"""

import asyncio
import io

from aiohttp import PAYLOAD_REGISTRY, Payload
from aiohttp.abc import AbstractStreamWriter

__all__ = ["Body"]

# What is handed to a connection at once, between two turns of the event loop. A copy: a connection that was given up
# keeps what it did not send, and must not keep all of the body with it.
_PIECE_BYTES = 256 << 10


class Body:
    """A body for botocore, which takes it for a file, and for aiohttp, which sends it piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._place = 0

    def __len__(self) -> int:
        return len(self.data)

    def read(self, size: int = -1) -> bytes:
        """As a file: botocore reads what it signs."""
        start = self._place
        self._place = len(self.data) if size < 0 else min(start + size, len(self.data))
        return self.data[start : self._place]

    def tell(self) -> int:
        """As a file."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self.data)}[whence]
        self._place = min(max(0, start + offset), len(self.data))
        return self._place


class _Pieces(Payload):
    _autoclose = True

    def __init__(self, body: Body, **_: object) -> None:
        super().__init__(body)
        self._data = body.data
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._data.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self._data

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        end = len(self._data) if content_length is None else min(content_length, len(self._data))
        for start in range(0, end, _PIECE_BYTES):
            if start:
                # The writer waits only for a connection that is full.
                await asyncio.sleep(0)
            await writer.write(self._data[start : min(start + _PIECE_BYTES, end)])


PAYLOAD_REGISTRY.register(_Pieces, Body)
