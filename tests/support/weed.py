"""SeaweedFS as an S3 server over plain HTTP: checks signatures, buckets in the path."""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers import ServerProgram, binary, free_ports, running

__all__ = ["IDENTITIES", "WeedServer", "weed_server"]

_ALL = ("Admin", "Read", "Write", "List", "Tagging")
IDENTITIES = {
    "second": _ALL,
    "noread": ("Write", "List", "Tagging"),
    "nowrite": ("Read", "List"),
    "nolist": ("Read", "Write"),
}
"""Further identities and what they may do."""

_GRPC_PORT_OFFSET = 10_000
_HIGHEST_PORT = 65_536 - _GRPC_PORT_OFFSET
_ACCESS_KEY_ID = "AKROOMTAPEWEED000001"
_SECRET_ACCESS_KEY = "weedsecretweedsecretweedsecretweedsecret"
# Where it makes sockets whatever TMPDIR says, and leaves them when it is killed.
_SOCKETS = Path("/tmp")


@dataclass(frozen=True, slots=True)
class WeedServer:
    """A running server."""

    endpoint: str
    filer: str
    """The URL of its files as plain HTTP serves them, past the S3 interface: `/buckets/<bucket>/<key>`."""
    program: ServerProgram = field(repr=False)
    access_key_id: str = _ACCESS_KEY_ID
    secret_access_key: str = _SECRET_ACCESS_KEY

    @staticmethod
    def keys(name: str) -> tuple[str, str]:
        """Access key and secret of one of `IDENTITIES`."""
        return f"AKROOMTAPE{name.upper():0>10}", f"secretsecretsecretsecret-{name}"


@contextmanager
def weed_server(
    folder: Path, bucket: str, *, access: Mapping[str, object] | None = None
) -> Iterator[WeedServer]:
    """Runs `weed mini` while the block runs, with one bucket, and without creating any other by itself.

    `access` is what it reads as `-s3.iam.config`: roles, their policies, and who may take them by STS.
    """
    ports = free_ports(5, below=_HIGHEST_PORT)
    endpoint, filer = f"http://127.0.0.1:{ports[3]}", f"http://127.0.0.1:{ports[2]}"
    identities = [_identity("tests", _ACCESS_KEY_ID, _SECRET_ACCESS_KEY, _ALL)]
    identities += [_identity(name, *WeedServer.keys(name), actions) for name, actions in IDENTITIES.items()]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    command = [binary("weed"), "-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1"]
    command += [
        "-ip.bind=127.0.0.1",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    command += ["-master.telemetry=false", f"-master.port={ports[0]}", f"-volume.port={ports[1]}"]
    command += [f"-filer.port={ports[2]}", f"-s3.port={ports[3]}", f"-admin.port={ports[4]}"]
    command += ["-s3.domainName=s3.test", "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"]
    command += [f"-s3.config={config}"]
    if access is not None:
        roles = folder / "access.json"
        roles.write_text(json.dumps(access))
        command += [f"-s3.iam.config={roles}"]
    with running(command, lambda: _is_ready(f"{endpoint}/status"), folder / "weed.log") as program:
        _make_bucket(f"{filer}/buckets/{bucket}/")
        yield WeedServer(endpoint, filer, program)
    for port in (*ports, *(port + _GRPC_PORT_OFFSET for port in ports)):
        for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _identity(name: str, access_key_id: str, secret: str, actions: Sequence[str]) -> Mapping[str, object]:
    credentials = [{"accessKey": access_key_id, "secretKey": secret}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _make_bucket(url: str) -> None:
    """Buckets are folders of the filer; so no part of the S3 interface is used to prepare it."""
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10):
        pass
