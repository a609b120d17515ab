"""One child process, started again whenever it dies."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from roomtape_service.readiness import EXIT_NODE_GONE, EXIT_UNUSABLE

__all__ = ["ChildGaveUp", "KeptProcess", "Restarts"]

_STDERR = 2
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Restarts:
    """When a child is started again, in seconds.

    It is after `first_pause`; the pause doubles each time it dies by its own fault before it lived for `healthy`, up
    to `longest_pause`. One that was never of use may do so `attempts` times.
    """

    healthy: float = 1.0
    first_pause: float = 0.1
    longest_pause: float = 2.0
    attempts: int = 5


_NOT_STARTED = -1
"""In place of an exit code."""

# A child that was killed, or whose node was, is not to blame.
_BLAMELESS = frozenset({-signal.SIGKILL, EXIT_NODE_GONE})


class ChildGaveUp(Exception):
    """A child that can't be of use, or says so itself; `code` is its exit code, negative for a signal."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with code {code}")
        self.name = name
        self.code = code


class KeptProcess:
    """Keeps one process alive from `run` to `end`.

    `prepare` gives the command of the next life, and may wait; `inherited` are descriptors that the child gets.
    `on_output` gets each line of stdout and says whether the child is of use now; a child that never is, is given up.
    Without it stdout goes to stderr, and the child is never given up unless it says so itself by EXIT_UNUSABLE.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], Awaitable[Sequence[str]]],
        inherited: Sequence[int],
        environment: Mapping[str, str],
        restarts: Restarts,
        on_output: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._name = name
        self._prepare = prepare
        self._inherited = inherited
        self._environment = environment
        self._restarts = restarts
        self._on_output = on_output
        self._log = structlog.get_logger("roomtape.supervisor")
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self._of_use = on_output is None

    async def run(self) -> None:
        """Starts the child, again and again, until `end`.

        Raises ChildGaveUp, and OSError when a child that was of no use yet can't be started.
        """
        loop = asyncio.get_running_loop()
        early = 0
        while not self._ending.is_set():
            started = loop.time()
            try:
                command = await self._unless_ending(self._prepare())
                if command is None:
                    return
                started = loop.time()
                code = await self._live(command)
            except OSError as error:
                if not self._of_use:
                    raise
                # The disk is full, or the machine has no process to give: that passes.
                self._log.error("child_not_started", child=self._name, error=str(error))
                code = _NOT_STARTED
            lived = loop.time() - started
            if self._ending.is_set():
                return
            early = 0 if lived >= self._restarts.healthy or code in _BLAMELESS else early + 1
            self._log.warning("child_died", child=self._name, code=code, lived_seconds=round(lived, 3))
            if code == EXIT_UNUSABLE or (not self._of_use and early >= self._restarts.attempts):
                raise ChildGaveUp(self._name, code)
            pause = min(self._restarts.first_pause * 2 ** max(0, early - 1), self._restarts.longest_pause)
            await self._unless_ending(asyncio.sleep(pause))

    def let_go(self) -> None:
        """From now on the child may end, and is not started again."""
        self._ending.set()

    async def end(self, *, leave_seconds: float, term_seconds: float) -> None:
        """Ends the child for good and waits for it.

        It may leave by itself for `leave_seconds`, then gets SIGTERM, and SIGKILL `term_seconds` later. Idempotent.
        """
        self.let_go()
        process = self._process
        if process is None:
            return
        if await _ended(process, leave_seconds):
            return
        self._send(signal.SIGTERM)
        if await _ended(process, term_seconds):
            return
        self._log.warning("child_hangs", child=self._name, pid=process.pid, seconds=term_seconds)
        self._send(signal.SIGKILL)
        await process.wait()

    def kill(self) -> None:
        """Ends the child at once and for good."""
        self.let_go()
        self._send(signal.SIGKILL)

    async def _live(self, command: Sequence[str]) -> int:
        reads = self._on_output is not None
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if reads else _STDERR,
            env=self._environment,
            pass_fds=self._inherited,
            # Ctrl-C in a terminal must reach the supervisor alone.
            process_group=0,
        )
        if self._ending.is_set():
            # Asked to end while it was being started: it has done nothing yet.
            process.kill()
        self._log.info("child_started", child=self._name, pid=process.pid)
        if process.stdout is not None:
            await self._read(process.stdout)
        return await process.wait()

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stdout.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_CHUNK_BYTES:]
            for line in lines:
                self._of_use = bool(self._on_output and self._on_output(line)) or self._of_use

    async def _unless_ending(self, step: Awaitable[Sequence[str] | None]) -> Sequence[str] | None:
        stepping = asyncio.ensure_future(step)
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({stepping, ending}, return_when=asyncio.FIRST_COMPLETED)
            return stepping.result() if stepping.done() else None
        finally:
            for task in (stepping, ending):
                task.cancel()
            await asyncio.wait({stepping, ending})

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        return process.returncode is not None
    return True
