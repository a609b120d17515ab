"""The way from a room's feed to its worker."""

from typing import Protocol

__all__ = ["WorkerChannel"]


class WorkerChannel(Protocol):
    """The way to one worker; what is sent after its loss goes nowhere."""

    def send(self, message: bytes) -> None:
        """Queues an encoded message."""
        ...
