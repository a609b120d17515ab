"""The server that the demo records with: `roomtape serve` as a process, with its own folder and free ports."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from roomtape_service.demo.failure import DemoError

__all__ = ["RunningServer", "running_server"]

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_WORKERS = 2
_LOG_TAIL_LINES = 10
# macOS takes 103 bytes for the path of a socket, and a temporary folder there has 50 already.
_LONGEST_DATA_DIR_BYTES = 80


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where it is."""

    target: str
    """gRPC, as `host:port`."""
    files: Path
    """Below it are the recorded files."""
    log: Path
    """What the server wrote."""


@asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[RunningServer]:
    """Serves out of `folder` for the time of the block, and stops in order. Raises DemoError."""
    files, log = folder / "files", folder / "server.log"
    with _reachable(folder / "data") as data:
        async with _serving(data, files, log) as target:
            yield RunningServer(target, files, log)


@contextmanager
def _reachable(data: Path) -> Iterator[Path]:
    """The folder by a path that is short enough for the sockets in it."""
    if len(os.fsencode(data)) <= _LONGEST_DATA_DIR_BYTES:
        yield data
        return
    data.mkdir()
    with tempfile.TemporaryDirectory(prefix="roomtape-") as short:
        link = Path(short, "data")
        link.symlink_to(data, target_is_directory=True)
        yield link


@asynccontextmanager
async def _serving(data: Path, files: Path, log: Path) -> AsyncIterator[str]:
    command = [
        *(sys.executable, "-m", "roomtape_service.cli.main", "serve", "--json"),
        *("--data-dir", str(data), "--storage-root", str(files)),
        *("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--workers", str(_WORKERS)),
    ]
    # The settings are the demo's, whatever the environment holds for other servers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOMTAPE_")}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            # Ctrl-C is the demo's to hear: it leaves the room and then stops the server.
            start_new_session=True,
        )
    try:
        yield await _target(process, log)
    finally:
        await _stop(process)


async def _target(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError:
        raise DemoError(f"the server was not ready in {_START_SECONDS:g} s{_tail(log)}") from None
    facts = json.loads(line) if line else {}
    if facts.get("event") != "ready":
        raise DemoError(f"the server did not start: {facts.get('problems', '')}{_tail(log)}")
    return str(facts["listen"])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(["", *lines])
