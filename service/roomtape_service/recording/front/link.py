"""The connection to one worker process."""

import asyncio
from collections.abc import Callable

import structlog

from roomtape_service.recording import protocol

__all__ = ["WorkerLink"]

_FLUSH_SECONDS = 0.01
"""Frames of many publishers go to the worker in one write: a system call each would cost more than the frames."""

_HIGH_WATER_BYTES = 256 << 20
"""A worker that is this far behind is as good as dead; its frames are held and go to the next."""

log = structlog.get_logger(__name__)


class WorkerLink:
    """Sends to a worker, and hands what it says to `receive`, in order, in the event loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hello: protocol.Hello,
        receive: Callable[[protocol.WorkerOp], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._receive = receive
        self._pending: list[bytes] = []
        self._flush_handle: asyncio.TimerHandle | None = None
        self.hello = hello
        self.rooms: set[str] = set()
        self.said_bye = asyncio.Event()

    def send(self, message: bytes) -> None:
        """Queues an encoded message."""
        self._pending.append(message)
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self._pending and not self._writer.is_closing():
            self._writer.write(b"".join(self._pending))
            if self._writer.transport.get_write_buffer_size() > _HIGH_WATER_BYTES:
                log.error("worker_too_slow", worker=self.hello.index, generation=self.hello.generation)
                self._writer.transport.abort()
        self._pending.clear()

    async def run(self) -> None:
        """Receives until the worker is gone."""
        try:
            while (op := await protocol.read_worker_op(self._reader)) is not None:
                self._receive(op)
                if isinstance(op, protocol.Bye):
                    self.said_bye.set()
        except (ConnectionError, asyncio.IncompleteReadError, protocol.ProtocolError) as error:
            log.warning("worker_connection_broken", worker=self.hello.index, error=str(error))
        finally:
            if self._flush_handle is not None:
                self._flush_handle.cancel()
            self._writer.close()
            self.said_bye.set()
