"""rclone as an S3 server as strict as the vendors: TLS, buckets in the host name alone, no aws-chunked bodies."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp.abc import AbstractResolver, ResolveResult

from tests.support.certificates import Certificates, make_certificates
from tests.support.servers import ServerProgram, accepts, binary, free_ports, running

__all__ = ["Loopback", "RcloneServer", "rclone_server"]

_DOMAIN = "s3.test"
_ACCESS_KEY_ID = "AKROOMTAPERCLONE0001"
_SECRET_ACCESS_KEY = "rclonesecretrclonesecretrclonesecret"


@dataclass(frozen=True, slots=True)
class RcloneServer:
    """A running server; objects are plain files below `folder`, a folder for each bucket."""

    endpoint: str
    authority: Path
    folder: Path
    access_key_id: str = _ACCESS_KEY_ID
    secret_access_key: str = _SECRET_ACCESS_KEY
    certificates: Certificates | None = None
    program: ServerProgram | None = field(default=None, repr=False)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.endpoint.rpartition(":")[2])


class Loopback(AbstractResolver):
    """Finds every name on this machine, on `port` where one is given."""

    def __init__(self, port: int | None = None) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        result = ResolveResult(
            hostname=host,
            host="127.0.0.1",
            port=self._port or port,
            family=socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        return [result]

    async def close(self) -> None:
        """Nothing is open."""


@contextmanager
def rclone_server(folder: Path, bucket: str) -> Iterator[RcloneServer]:
    """Runs `rclone serve s3` while the block runs, with one bucket."""
    (port,) = free_ports(1)
    certificates = make_certificates(folder, [f"*.{_DOMAIN}", _DOMAIN, "127.0.0.1"])
    objects = folder / "objects"
    (objects / bucket).mkdir(parents=True)
    command = [binary("rclone"), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    command += ["--cert", str(certificates.certificate), "--key", str(certificates.key)]
    command += ["--force-path-style=false", "--vfs-cache-mode", "off"]
    command += ["--auth-key", f"{_ACCESS_KEY_ID},{_SECRET_ACCESS_KEY}", str(objects)]
    with running(command, lambda: accepts(port), folder / "rclone.log") as program:
        yield RcloneServer(
            f"https://{_DOMAIN}:{port}",
            certificates.authority,
            objects,
            certificates=certificates,
            program=program,
        )
