"""A child that is kept running."""

import asyncio
import errno
import sys
from collections.abc import Sequence

import pytest

from roomtape_service.kept_process import KeptProcess, Restarts

RESTARTS = Restarts(first_pause=0.01, longest_pause=0.01)


async def test_what_can_not_be_started_now_is_started_when_it_can() -> None:
    """A disk without room for the settings of a node passes."""
    failures, started = 3, asyncio.Event()

    async def prepare() -> Sequence[str]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        started.set()
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    child = KeptProcess("child", prepare, (), {}, RESTARTS)
    running = asyncio.create_task(child.run())
    async with asyncio.timeout(20):
        await started.wait()
        await child.end(leave_seconds=0, term_seconds=5)
        await running
    assert failures == -1


async def test_one_that_was_never_of_use_and_can_not_be_started_is_told() -> None:
    async def prepare() -> Sequence[str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    child = KeptProcess("child", prepare, (), {}, RESTARTS, lambda line: True)
    with pytest.raises(OSError, match="No space left"):
        await child.run()
