"""Work that must reach its end although its caller went away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Operations"]

T = TypeVar("T")


class Operations:
    """Owns operations that store something and then act on it.

    A caller that is cancelled between the two must not leave the node knowing less than its database.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Runs the operation to its end, and returns what it does, unless the caller is cancelled before."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Waits for what runs. Idempotent."""
        while self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # A caller that is still there gets it; one that went away can't, and nobody must be told twice.
            task.exception()
