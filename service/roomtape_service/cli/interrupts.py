"""Ctrl-C as a wish to end well."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts(on_first: Callable[[], object]) -> Iterator[None]:
    """While the block runs, the first Ctrl-C (SIGTERM, SIGHUP) calls `on_first`, the next cancels the current task."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def hear() -> None:
        nonlocal asked
        if not asked:
            asked = True
            on_first()
        elif task is not None:
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, hear)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
