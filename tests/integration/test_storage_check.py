"""CheckStorage: every step on real stores, and what it says when one fails."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roomtape.v1 import application_pb2, storage_pb2
from roomtape_service.ids import CountedIds
from roomtape_service.storage.check import StorageCheck
from roomtape_service.storage.stores import Stores
from tests.support.rclone import RcloneServer
from tests.support.servers import free_ports
from tests.support.stores import BUCKET, disk_settings, make_stores, rclone_settings, weed_settings
from tests.support.weed import WeedServer

STEPS = ["put", "head", "read", "multipart", "delete"]


@pytest.fixture
async def stores(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Stores]:
    stores = make_stores(tmp_path / "files", authority=rclone.authority)
    yield stores
    await stores.aclose()


async def _check(
    stores: Stores, settings: storage_pb2.StorageSettings
) -> application_pb2.CheckStorageResponse:
    return await StorageCheck(stores, CountedIds()).check(settings)


@pytest.mark.parametrize("server", ["disk", "weed", "rclone"])
async def test_a_store_that_works(
    stores: Stores, weed: WeedServer, rclone: RcloneServer, server: str, tmp_path: Path
) -> None:
    settings = {
        "disk": disk_settings(prefix="a/b"),
        "weed": weed_settings(weed),
        "rclone": rclone_settings(rclone),
    }[server]
    response = await _check(stores, settings)
    assert response.ok
    assert [(step.name, step.ok, step.error_code, step.message) for step in response.steps] == [
        (name, True, "", "") for name in STEPS
    ]
    left = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    left += [path for path in (rclone.folder / BUCKET).rglob("roomtape-storage-check-*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"access_key_id": "AKROOMTAPEUNKNOWN001"}, "InvalidAccessKeyId", "access_key_id"),
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch", "secret_access_key"),
        ({"bucket": "no-such-bucket"}, "NoSuchBucket", "no-such-bucket"),
    ],
)
@pytest.mark.parametrize("server", ["weed", "rclone"])
async def test_a_store_that_refuses(
    stores: Stores,
    weed: WeedServer,
    rclone: RcloneServer,
    server: str,
    change: dict[str, str],
    code: str,
    says: str,
) -> None:
    settings = weed_settings(weed, **change) if server == "weed" else rclone_settings(rclone, **change)
    response = await _check(stores, settings)
    assert not response.ok
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, code)
    assert says in step.message
    assert settings.object_store.credentials.secret_access_key.value not in step.message.split()


async def test_a_store_that_is_not_there(stores: Stores, weed: WeedServer) -> None:
    (port,) = free_ports(1)
    response = await _check(stores, weed_settings(weed, endpoint=f"http://127.0.0.1:{port}"))
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "ConnectionFailed")
    assert f"127.0.0.1:{port}" in step.message


async def test_a_certificate_that_nobody_trusts(tmp_path: Path, rclone: RcloneServer) -> None:
    stores = make_stores(tmp_path / "files")
    response = await _check(stores, rclone_settings(rclone))
    await stores.aclose()
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "CertificateInvalid")


async def test_buckets_in_the_path_where_the_server_wants_them_in_the_host(
    stores: Stores, rclone: RcloneServer
) -> None:
    settings = rclone_settings(rclone)
    settings.object_store.path_style = True
    assert not (await _check(stores, settings)).ok


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    stores = make_stores(tmp_path / "files")
    response = await _check(stores, disk_settings())
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "ENOTDIR")
    assert str(tmp_path / "files") in step.message
