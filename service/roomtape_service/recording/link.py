"""The worker's end of the connection to its node: a blocking socket, since a worker waits for nothing else."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from typing import Final

from roomtape_service.recording.protocol import Message, MessageDecoder, WorkerOp, encode

__all__ = ["NodeLink"]

_READ_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 4 << 20
"""What may come while a tick encodes; the kernel may grant less."""


class NodeLink:
    """Owned by one thread, apart from `wake`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._decoder = MessageDecoder()
        self._outgoing: list[bytes] = []
        self._wake_read, self._wake_write = os.pipe()
        self._poll = select.poll()
        self.received_bytes = 0
        """How much the last `receive` read."""

    def connect(self) -> None:
        """Raises OSError."""
        self._socket.connect(self._path)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        os.set_blocking(self._wake_write, False)
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def send(self, op: WorkerOp) -> None:
        """Queues a message for the next `flush`."""
        self._outgoing.append(encode(op))

    def flush(self) -> None:
        """Sends what is queued. Raises OSError when the node is gone."""
        if self._outgoing:
            self._socket.sendall(b"".join(self._outgoing))
            self._outgoing.clear()

    def receive(self, timeout_seconds: float) -> Iterator[Message] | None:
        """Waits for the node, or for `wake`, and returns what came; None when the node is gone.

        Raises OSError, and ProtocolError while it is iterated.
        """
        self.received_bytes = 0
        ready = {fd for fd, _ in self._poll.poll(max(0.0, timeout_seconds) * 1000)}
        if self._wake_read in ready:
            os.read(self._wake_read, _READ_BYTES)
        if self._socket.fileno() not in ready:
            return iter(())
        data = self._socket.recv(_READ_BYTES)
        if not data:
            return None
        self.received_bytes = len(data)
        return self._decoder.feed(data)

    def wake(self) -> None:
        """Ends a `receive` that waits; may be called from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
