"""One budget of memory for all that is being uploaded."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Hands out bytes, first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        """What is handed out now."""
        return self._used_bytes

    async def acquire(self, size_bytes: int) -> int:
        """Waits for `size_bytes` and returns what must be given back to `release`.

        More than the whole budget is taken as all of it, so that one large thing passes when it is alone.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        if not self._waiting and self._used_bytes + size_bytes <= self._limit_bytes:
            self._used_bytes += size_bytes
            return size_bytes
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._used_bytes -= size_bytes
            else:
                with suppress(ValueError):
                    self._waiting.remove((size_bytes, turn))
            self._hand_out()
            raise
        return size_bytes

    def release(self, size_bytes: int) -> None:
        """Gives back what `acquire` returned."""
        self._used_bytes -= size_bytes
        self._hand_out()

    @asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncIterator[None]:
        """Holds `size_bytes` while the block runs."""
        taken = await self.acquire(size_bytes)
        try:
            yield
        finally:
            self.release(taken)

    def _hand_out(self) -> None:
        while self._waiting and self._used_bytes + self._waiting[0][0] <= self._limit_bytes:
            size_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used_bytes += size_bytes
                turn.set_result(None)
