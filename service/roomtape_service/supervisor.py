"""Keeps one node and its workers running, and ends them in order. Plain asyncio: it spawns, so it never loads gRPC.

1. One supervisor a data folder: a lock, which the children hold too, so that a new supervisor waits for the last
   child of one that was killed.
2. The node and the workers start; the workers wait for the node's socket.
3. What dies is started again, after a pause that grows while it keeps dying.
4. The first signal stops in order: the node drains and tells its workers to finish; then what is left of the workers
   goes. A second signal kills: what was acknowledged is on the spool, and the next start recovers it.
5. If the supervisor is killed, the pipe that all children watch ends, and so do they (`child`).
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import structlog

from roomtape_service import failpoints
from roomtape_service.kept_process import ChildGaveUp, KeptProcess, Restarts
from roomtape_service.locks import DataDirLock
from roomtape_service.readiness import Ready, read_announcement
from roomtape_service.settings import Address, Settings, dump, with_addresses

__all__ = ["READY_FILE", "Programs", "Supervisor", "Timing"]

READY_FILE = "ready.json"
SETTINGS_FILE = "settings.json"

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_GRPC_ENVIRONMENT = {
    # The core tells stderr of things that are none of an operator's business.
    "GRPC_VERBOSITY": "ERROR",
    # The core's older listener is polled by the thread that takes the messages, not by a pool of threads of its own:
    # a publisher costs a quarter less.
    "GRPC_EXPERIMENTS": "-event_engine_listener",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the supervisor is, in seconds."""

    restarts: Restarts = field(default_factory=Restarts)
    # What the node may take beside its waits of `drain_seconds`: its other steps, the database closes.
    node_stop: float = 30.0
    # How many of its steps wait that long at worst: publishers, watchers, calls.
    node_drains: int = 3
    # The node has told them to finish, so they leave by themselves; who has not is stuck, and recovery mends it.
    worker_leave: float = 2.0
    worker_stop: float = 1.0
    # Beyond what the children of a supervisor that was killed may take to end.
    lock_wait: float = 15.0
    # Terminals and the programs between send one Ctrl-C more than once; a second one within this is the same.
    hasten_after: float = 1.0


@dataclass(frozen=True, slots=True)
class Programs:
    """The modules that run as node and as worker."""

    node: str = "roomtape_service.node"
    worker: str = "roomtape_service.recording.worker"


class Supervisor:
    """Runs the processes of one data folder until it is told to stop by `stop` or a signal.

    `on_ready` is called once, when the node serves for the first time.
    """

    def __init__(
        self,
        settings: Settings,
        on_ready: Callable[[Ready], None],
        *,
        environment: Mapping[str, str],
        programs: Programs | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._environment = {**_GRPC_ENVIRONMENT, **environment}
        self._programs = programs or Programs()
        self._timing = timing or Timing()
        self._log = structlog.get_logger("roomtape.supervisor")
        self._lock = DataDirLock(settings.run_dir)
        self._stop_asked = asyncio.Event()
        self._kill_asked = asyncio.Event()
        self._stop_asked_at = time.monotonic()
        self._ready = False

    def stop(self) -> None:
        """The first call stops in order, one that comes `hasten_after` later or more stops at once."""
        now = time.monotonic()
        if not self._stop_asked.is_set():
            self._stop_asked_at = now
            self._stop_asked.set()
        elif now - self._stop_asked_at >= self._timing.hasten_after:
            self._kill_asked.set()

    async def run(self) -> int:
        """Runs until it was stopped; returns the exit code.

        That is 0 after an ordered stop, else the code of the child that gave up. Raises LockedError when another
        service has the data folder.
        """
        await self._lock.acquire(2 * self._node_seconds + self._timing.lock_wait)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        read_end, write_end = os.pipe()
        try:
            return await self._supervise(read_end)
        finally:
            os.close(write_end)
            os.close(read_end)
            for name in (READY_FILE, SETTINGS_FILE):
                (self._settings.run_dir / name).unlink(missing_ok=True)
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            self._lock.release()

    async def _supervise(self, lifeline: int) -> int:
        node = self._keep("node", lifeline, (0.0, self._node_seconds), self._node_arguments, self._read_node)
        # While the node drains, its workers write what it hands them.
        waits = (self._node_seconds, self._timing.worker_stop)
        workers = [
            self._keep(f"worker-{index}", lifeline, waits, self._worker_arguments(index), None)
            for index in range(self._settings.workers)
        ]
        children = [node, *workers]
        running = [asyncio.create_task(child.run()) for child in children]
        asked = asyncio.create_task(self._stop_asked.wait())
        killing = asyncio.create_task(self._kill_when_asked(children))
        try:
            await asyncio.wait({asked, *running}, return_when=asyncio.FIRST_COMPLETED)
            self._stop_asked.set()
            self._log.info("stopping")
            for child in children:
                child.let_go()
            # 1. The node: streams end in-band, workers close their segments, events are stored.
            await node.end(leave_seconds=0, term_seconds=self._node_seconds)
            # 2. The workers, which have nobody to work for any more.
            leave, term = self._timing.worker_leave, self._timing.worker_stop
            await asyncio.gather(*(worker.end(leave_seconds=leave, term_seconds=term) for worker in workers))
            return _code(await asyncio.gather(*running, return_exceptions=True))
        finally:
            for task in (asked, killing, *running):
                task.cancel()
            await asyncio.gather(asked, killing, *running, return_exceptions=True)

    @property
    def _node_seconds(self) -> float:
        return self._timing.node_drains * self._settings.drain_seconds + self._timing.node_stop

    async def _kill_when_asked(self, children: Sequence[KeptProcess]) -> None:
        await self._kill_asked.wait()
        self._log.warning("stopping_at_once")
        for child in children:
            child.kill()

    def _keep(
        self,
        name: str,
        lifeline: int,
        waits: tuple[float, float],
        arguments: Callable[[], Awaitable[Sequence[str]]],
        on_output: Callable[[bytes], bool] | None,
    ) -> KeptProcess:
        patience, kill_after = waits
        prefix = [
            *(sys.executable, "-m", "roomtape_service.child", "--name", name),
            *("--lifeline", str(lifeline), "--patience", str(patience)),
            *("--kill-after", str(kill_after)),
            *("--log-level", self._settings.log_level, "--log-format", self._settings.log_format),
        ]
        if self._settings.failpoints_file is not None:
            prefix += ["--failpoints", str(self._settings.failpoints_file)]

        async def command() -> Sequence[str]:
            return [*prefix, *await arguments()]

        inherited = (lifeline, self._lock.descriptor)
        restarts = self._timing.restarts
        return KeptProcess(name, command, inherited, self._environment, restarts, on_output)

    async def _node_arguments(self) -> Sequence[str]:
        # A socket that a dead node left would make workers connect to nobody.
        self._settings.node_socket.unlink(missing_ok=True)
        path = self._settings.run_dir / SETTINGS_FILE
        path.unlink(missing_ok=True)
        # It may hold a database password.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(dump(self._settings), file)
        return [self._programs.node, "--settings", str(path)]

    def _worker_arguments(self, index: int) -> Callable[[], Awaitable[Sequence[str]]]:
        async def arguments() -> Sequence[str]:
            return [
                *(self._programs.worker, "--socket", str(self._settings.node_socket)),
                *("--spool", str(self._settings.spool_dir), "--index", str(index)),
                *("--durability", self._settings.durability),
            ]

        return arguments

    def _read_node(self, line: bytes) -> bool:
        ready = read_announcement(line)
        if ready is None:
            return False
        # A node that dies comes back where its callers know it, also when the system chose the port.
        listen, http_listen = Address.read(ready.listen), Address.read(ready.http_listen)
        self._settings = with_addresses(self._settings, listen, http_listen)
        draft = self._settings.run_dir / f".{READY_FILE}"
        draft.write_text(json.dumps({**asdict(ready), "pid": os.getpid()}))
        failpoints.hit("supervisor.ready")
        draft.rename(self._settings.run_dir / READY_FILE)
        if not self._ready:
            self._ready = True
            self._on_ready(ready)
        return True


def _code(results: Sequence[BaseException | None]) -> int:
    for result in results:
        if isinstance(result, ChildGaveUp):
            return result.code if result.code > 0 else 1
        if result is not None:
            raise result
    return 0
