"""Waiting for conditions instead of sleeping."""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["eventually"]

_POLL_SECONDS = 0.02


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str,
    *,
    timeout_seconds: float = 30.0,
    poll_seconds: float = _POLL_SECONDS,
) -> None:
    """Returns when `condition` holds; raises AssertionError with `what` when it does not in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                result = condition()
                if await result if isinstance(result, Awaitable) else result:
                    return
                await asyncio.sleep(poll_seconds)
    except TimeoutError:
        raise AssertionError(f"in {timeout_seconds} s it did not come to be that {what}") from None
