"""Server processes for tests: ports, waiting until they answer, and their end."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["ServerProgram", "accepts", "binary", "free_ports", "running"]

_READY_SECONDS = 30.0
_POLL_SECONDS = 0.02


def binary(name: str) -> str:
    """A program that a wheel put beside the interpreter."""
    return str(Path(sys.executable).parent / name)


def free_ports(count: int, *, below: int = 65_536) -> Sequence[int]:
    """TCP ports of 127.0.0.1 that nobody has now, no two alike."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            if (port := listener.getsockname()[1]) < below:
                ports.append(port)
        return ports


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class ServerProgram:
    """A server that can be killed and started again on what it left. Its output goes to `log`."""

    def __init__(self, command: Sequence[str], is_ready: Callable[[], bool], log: Path) -> None:
        self._command = command
        self._is_ready = is_ready
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises AssertionError."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._log.parent,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, self._complaint("ended")
            assert time.monotonic() < deadline, self._complaint("is not ready")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """By SIGKILL. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _complaint(self, what: str) -> str:
        return f"{self._command[0]} {what}: {self._log.read_text()[-2000:]}"


@contextmanager
def running(command: Sequence[str], is_ready: Callable[[], bool], log: Path) -> Iterator[ServerProgram]:
    """Runs a server while the block runs; it ends by SIGKILL. Its output goes to `log`."""
    program = ServerProgram(command, is_ready, log)
    try:
        program.start()
        yield program
    finally:
        program.kill()
