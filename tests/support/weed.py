"""SeaweedFS as an S3 server over plain HTTP: checks signatures, buckets in the path."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import binary, free_ports, running

__all__ = ["WeedServer", "weed_server"]

_GRPC_PORT_OFFSET = 10_000
_HIGHEST_PORT = 65_536 - _GRPC_PORT_OFFSET
# Where it makes sockets whatever TMPDIR says, and leaves them when it is killed.
_SOCKETS = Path("/tmp")


@dataclass(frozen=True, slots=True)
class WeedServer:
    """A running server."""

    endpoint: str
    access_key_id: str = "AKROOMTAPEWEED000001"
    secret_access_key: str = "weedsecretweedsecretweedsecretweedsecret"


@contextmanager
def weed_server(folder: Path, bucket: str) -> Iterator[WeedServer]:
    """Runs `weed mini` while the block runs, with one bucket, and without creating any other by itself."""
    ports = free_ports(5, below=_HIGHEST_PORT)
    server = WeedServer(f"http://127.0.0.1:{ports[3]}")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key_id, "secretKey": server.secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
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
    with running(command, lambda: _is_ready(f"{server.endpoint}/status"), folder / "weed.log"):
        _make_bucket(f"http://127.0.0.1:{ports[2]}/buckets/{bucket}/")
        yield server
    for port in (*ports, *(port + _GRPC_PORT_OFFSET for port in ports)):
        for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


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
