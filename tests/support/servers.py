"""Server processes for tests: ports, waiting until they answer, and their end."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["accepts", "binary", "free_ports", "running"]

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


@contextmanager
def running(command: Sequence[str], is_ready: Callable[[], bool], log: Path) -> Iterator[None]:
    """Runs a server while the block runs; it ends by SIGKILL. Its output goes to `log`."""
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _READY_SECONDS
            while not is_ready():
                assert process.poll() is None, f"{command[0]} ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"{command[0]} is not ready: {log.read_text()[-2000:]}"
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            process.kill()
            process.wait()
