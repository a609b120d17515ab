"""The real service as processes: supervisor, node and workers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from tests.support.failpoints import SESSION_FILE

__all__ = ["ServerProcess", "running_server"]

_START_SECONDS = 60.0
_STOP_SECONDS = 40.0


class ServerProcess:
    """`roomtape serve` on free ports of this machine; `target` is where gRPC is."""

    def __init__(
        self, data_dir: Path, *, environment: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        """`environment` is what is added to that of the tests, `settings` what differs from theirs."""
        self.data_dir = data_dir
        self._environment = environment or {}
        self._settings = {
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "workers": 1,
            "log_format": "json",
            "create_default_application": "app",
            "record_calls_per_second": 10_000,
            "record_calls_burst": 10_000,
            **({"failpoints_file": SESSION_FILE} if SESSION_FILE.exists() else {}),
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._orphans: list[psutil.Process] = []
        self.target = ""
        self.http_target = ""

    @property
    def log_path(self) -> Path:
        """What the processes wrote to stderr."""
        return self.data_dir / "server.log"

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        command = [sys.executable, "-m", "roomtape_service.cli.main", "serve", "--json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOMTAPE_")}
        environment |= self._environment
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                f"--data-dir={self.data_dir}",
                *flags,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start: {self.log_path.read_text('utf-8')[-4000:]}")
        ready = json.loads(line)
        if ready["event"] != "ready":
            raise RuntimeError(f"the server refused: {ready}")
        self.target = ready["listen"]
        self.http_target = ready["http_listen"]
        # A server that is started again must be found where it was.
        self._settings |= {"listen": self.target, "http_listen": self.http_target}

    async def stop(self) -> int:
        """Stops it in order, and returns its exit code."""
        process = self._process
        if process is None or process.returncode is not None:
            return 0
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            return await process.wait()

    async def kill(self) -> None:
        """Ends every process at once, as a machine would that goes down."""
        process = self._process
        for each in (*self._orphans, *self._children()):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._orphans.clear()
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def kill_supervisor(self) -> None:
        """Ends the supervisor alone; what it started sees that, and ends in its own way."""
        assert self._process is not None
        self._orphans += self._children()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether the supervisor is there."""
        return self._process is not None and self._process.returncode is None

    def node(self) -> psutil.Process | None:
        """The node's process, if there is one."""
        return next(iter(self._running("roomtape_service.node")), None)

    def workers(self) -> list[psutil.Process]:
        """The workers' processes."""
        return self._running("roomtape_service.recording.worker")

    def processes(self) -> list[psutil.Process]:
        """All processes of the service, the supervisor first."""
        assert self._process is not None
        return [psutil.Process(self._process.pid), *self._children()]

    def _children(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _running(self, module: str) -> list[psutil.Process]:
        found = []
        for child in self._children():
            try:
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found


@asynccontextmanager
async def running_server(
    data_dir: Path, *, environment: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[ServerProcess]:
    """A server for the time of a `with`; what it logged is shown when something fails."""
    server = ServerProcess(data_dir, environment=environment, **settings)
    try:
        await server.start()
        yield server
        await server.stop()
    except BaseException:
        if server.log_path.exists():
            print(server.log_path.read_text("utf-8")[-8000:], file=sys.stderr)
        raise
    finally:
        await server.kill()
