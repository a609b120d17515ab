"""The three stores under test: how the service reaches each, how it fails, and what is in it, past our own code."""

import json
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import botocore.session
from botocore.config import Config

from roomtape.v1 import storage_pb2
from tests.support.fault_proxy import FaultProxy, Upstream, fault_proxy
from tests.support.rclone import RcloneServer, rclone_server
from tests.support.servers import ServerProgram
from tests.support.stores import BUCKET, disk_settings, rclone_settings, weed_settings
from tests.support.weed import WeedServer, weed_server

__all__ = ["STORES", "FaultyStore", "faulty_store"]

STORES = ("disk", "weed", "rclone")
_RCLONE_TEMPORARY = ".rclone_temp_multipart_"

_PREFIX = "kept"


class FaultyStore(ABC):
    """A store with the network in front of it. `proxy` is None for a disk, which has none."""

    proxy: FaultProxy | None = None
    program: ServerProgram | None = None
    """Its server, which may be killed and started again on what it left."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the service needs to find it."""
        return {}

    @abstractmethod
    def settings(self, **changes: str) -> storage_pb2.StorageSettings:
        """What the application is set to; with `secret_access_key` a wrong one."""

    @abstractmethod
    def objects(self) -> dict[str, int]:
        """Sizes of all objects by key. Blocks."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """An object. Blocks."""

    @abstractmethod
    def unfinished(self) -> list[str]:
        """Keys of multipart uploads, or names of files, that nobody completed. Blocks."""


class _Disk(FaultyStore):
    def __init__(self, root: Path) -> None:
        self._folder = root / "tests"

    def settings(self, **changes: str) -> storage_pb2.StorageSettings:
        return disk_settings("tests", _PREFIX)

    def objects(self) -> dict[str, int]:
        return _files(self._folder)

    def read(self, key: str) -> bytes:
        return (self._folder / key).read_bytes()

    def unfinished(self) -> list[str]:
        parts = self._folder / ".parts"
        return [str(path) for path in parts.rglob("*")] if parts.exists() else []


class _Weed(FaultyStore):
    def __init__(self, server: WeedServer, proxy: FaultProxy) -> None:
        self._server = server
        self.proxy, self.program = proxy, server.program

    def settings(self, **changes: str) -> storage_pb2.StorageSettings:
        settings = weed_settings(self._server, endpoint=f"http://127.0.0.1:{self._port}", **changes)
        settings.prefix = _PREFIX
        return settings

    def objects(self) -> dict[str, int]:
        return dict(self._walk(""))

    def read(self, key: str) -> bytes:
        with urllib.request.urlopen(f"{self._url}/{quote(key)}", timeout=30) as answer:
            data: bytes = answer.read()
            return data

    def unfinished(self) -> list[str]:
        server = self._server
        return _multiparts(
            Config(s3={"addressing_style": "path"}),
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
        )

    @property
    def _port(self) -> int:
        assert self.proxy is not None
        return self.proxy.port

    @property
    def _url(self) -> str:
        return f"{self._server.filer}/buckets/{BUCKET}"

    def _walk(self, folder: str) -> Iterator[tuple[str, int]]:
        last = ""
        while True:
            url = f"{self._url}/{quote(folder)}?limit=1000&lastFileName={quote(last)}"
            request = urllib.request.Request(url, headers={"Accept": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                page = json.loads(answer.read())
            entries = page.get("Entries") or []
            for entry in entries:
                name = entry["FullPath"].removeprefix(f"/buckets/{BUCKET}/")
                # Folders have the type bit of one, and `.uploads` holds parts.
                if entry["Mode"] & (1 << 31):
                    if name != ".uploads":
                        yield from self._walk(f"{name}/")
                else:
                    yield name, entry["FileSize"]
            if not page.get("ShouldDisplayLoadMore"):
                return
            last = page["LastFileName"]


class _Rclone(FaultyStore):
    def __init__(self, server: RcloneServer, proxy: FaultProxy) -> None:
        self._server = server
        self.proxy, self.program = proxy, server.program

    @property
    def environment(self) -> Mapping[str, str]:
        return {"HTTPS_PROXY": self._proxy_url, "AWS_CA_BUNDLE": str(self._server.authority)}

    def settings(self, **changes: str) -> storage_pb2.StorageSettings:
        settings = rclone_settings(self._server, **changes)
        settings.prefix = _PREFIX
        return settings

    def objects(self) -> dict[str, int]:
        # When it is killed it forgets the uploads that were begun, but not their files: no request reaches those.
        files = _files(self._server.folder / BUCKET)
        return {key: size for key, size in files.items() if not Path(key).name.startswith(_RCLONE_TEMPORARY)}

    def read(self, key: str) -> bytes:
        return (self._server.folder / BUCKET / key).read_bytes()

    def unfinished(self) -> list[str]:
        server = self._server
        return _multiparts(
            Config(s3={"addressing_style": "virtual"}, proxies={"https": self._proxy_url}),
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
            verify=str(server.authority),
        )

    @property
    def _proxy_url(self) -> str:
        assert self.proxy is not None
        return f"http://127.0.0.1:{self.proxy.port}"


def _files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != ".parts"
    }


def _multiparts(config: Config, **account: str) -> list[str]:
    client = botocore.session.Session().create_client(
        "s3", region_name="us-east-1", config=config.merge(Config(signature_version="s3v4")), **account
    )
    try:
        uploads = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    finally:
        client.close()
    return [upload["Key"] for upload in uploads]


@asynccontextmanager
async def faulty_store(name: str, folder: Path, storage_root: Path) -> AsyncIterator[FaultyStore]:
    """Runs one of `STORES`, with the network in front of it."""
    folder.mkdir()
    match name:
        case "disk":
            yield _Disk(storage_root)
        case "weed":
            with weed_server(folder, BUCKET) as weed:
                async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
                    yield _Weed(weed, proxy)
        case "rclone":
            with rclone_server(folder, BUCKET) as rclone:
                certificates = rclone.certificates
                assert certificates is not None
                upstream = Upstream(
                    rclone.port,
                    authority=certificates.authority,
                    certificate=certificates.certificate,
                    key=certificates.key,
                )
                async with fault_proxy(upstream) as proxy:
                    yield _Rclone(rclone, proxy)
        case _:
            raise ValueError(f"{name!r} is none of {', '.join(STORES)}")
