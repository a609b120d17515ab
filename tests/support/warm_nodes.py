"""Nodes that follow each other on the same data within moments: killed, or stopped in order, and started again."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from roomtape_service.readiness import read_announcement
from roomtape_service.recording import protocol
from roomtape_service.settings import dump, parse
from roomtape_service.spool.generation import Generation
from tests.support.servers import free_ports

__all__ = ["APP", "WarmNodes"]

APP = "app"

_ENDED = b"ended "
_READ_BYTES = 65_536
_CONNECT_PAUSE_SECONDS = 0.01
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


class WarmNodes:
    """One node at a time, at `target`, with the application `APP`; it starts and ends within moments.

    No worker encodes anything: one that has nothing to do stands by, so that tasks may be started.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        """`settings` is what differs from those of tests."""
        port, http_port = free_ports(2)
        self.target = f"127.0.0.1:{port}"
        self.settings = parse(
            {
                "data_dir": str(folder),
                "listen": self.target,
                "http_listen": f"127.0.0.1:{http_port}",
                "workers": 1,
                "create_default_application": APP,
                "record_calls_per_second": 100_000,
                "record_calls_burst": 100_000,
                **settings,
            }
        )
        self._settings_path = folder / "settings.json"
        self._log_path = folder / "node.log"
        self._process: asyncio.subprocess.Process | None = None
        self._pid: int | None = None
        self._lives = 0
        self._worker: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the node."""
        assert self._pid is not None
        return self._pid

    async def __aenter__(self) -> Self:
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        self._settings_path.write_text(json.dumps(dump(self.settings)), "utf-8")
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.warm_node"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._log_path.exists():
            print(self._log_path.read_text("utf-8")[-8000:], file=sys.stderr)
        await self.kill()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    def logged(self, text: str) -> int:
        """How many lines of the nodes' log have the text."""
        return sum(text in line for line in self._log_path.read_text("utf-8").splitlines())

    async def start(self) -> None:
        """Starts one, and returns when it serves."""
        assert self._pid is None
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._settings_path}\n".encode())
        self._lives += 1
        self._worker = asyncio.create_task(self._stand_by(f"idle-{os.getpid()}-{self._lives}"))
        async with asyncio.timeout(_START_SECONDS):
            while read_announcement(line := await self._hear()) is None:
                assert not line.startswith(_ENDED), self._log_path.read_text("utf-8")[-4000:]
                self._pid = self._pid or int(line)

    async def kill(self) -> None:
        """Ends it where it stands. Idempotent."""
        if self._pid is not None:
            await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stops it in order."""
        code = await self._end(signal.SIGTERM)
        assert code == 0, f"the node ended with {code}"

    async def _end(self, number: signal.Signals) -> int:
        os.kill(self.pid, number)
        async with asyncio.timeout(_STOP_SECONDS):
            while not (line := await self._hear()).startswith(_ENDED):
                pass
        self._pid = None
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        return int(line.removeprefix(_ENDED))

    async def _hear(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, self._log_path.read_text("utf-8")[-4000:]
        return line

    async def _stand_by(self, name: str) -> None:
        """A worker, from the node's start to its end."""
        reader, writer = await self._connected()
        generation = Generation(self.settings.spool_dir, name)
        generation.open()
        try:
            writer.write(protocol.encode(protocol.Hello(0, name, os.getpid(), str(generation.folder))))
            decoder = protocol.MessageDecoder()
            is_over = False
            while not is_over and (data := await reader.read(_READ_BYTES)):
                is_over = any(isinstance(each, protocol.Shutdown) for each in decoder.feed(data))
            writer.write(protocol.encode(protocol.Bye()))
        except ConnectionError:
            pass
        finally:
            generation.close()
            writer.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_unix_connection(self.settings.run_dir / "node.sock")
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
