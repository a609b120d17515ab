"""Storage settings that lead to the servers of the tests, and stores made of them."""

from pathlib import Path

from roomtape.v1 import storage_pb2
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.s3 import S3Limits
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.stores import Stores
from tests.support.rclone import Loopback, RcloneServer
from tests.support.weed import WeedServer

__all__ = ["BUCKET", "SECRET_KEY", "disk_settings", "make_stores", "rclone_settings", "weed_settings"]

BUCKET = "roomtape-tests-1250000000"

SECRET_KEY = bytes(range(32))


def make_stores(
    root: Path,
    *,
    authority: Path | None = None,
    limits: S3Limits | None = None,
    port: int | None = None,
    unread_seconds: float = 10.0,
) -> Stores:
    """Stores that find every host on this machine (at `port`, where given) and trust `authority`."""
    clients = S3Clients(resolver=Loopback(port), ca_file=authority, unread_seconds=unread_seconds)
    return Stores(root, SecretBox(SECRET_KEY), clients=clients, limits=limits)


def disk_settings(folder: str = "tests", prefix: str = "") -> storage_pb2.StorageSettings:
    """A folder below the root."""
    return storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder=folder), prefix=prefix)


def weed_settings(server: WeedServer, **changes: str) -> storage_pb2.StorageSettings:
    """The bucket on SeaweedFS, with `bucket`, `endpoint`, `access_key_id` or `secret_access_key` as told."""
    return _object_store(
        bucket=changes.get("bucket", BUCKET),
        endpoint=changes.get("endpoint", server.endpoint),
        access_key_id=changes.get("access_key_id", server.access_key_id),
        secret_access_key=changes.get("secret_access_key", server.secret_access_key),
        path_style=True,
    )


def rclone_settings(server: RcloneServer, **changes: str) -> storage_pb2.StorageSettings:
    """The bucket on rclone, with changes as in `weed_settings`."""
    return _object_store(
        bucket=changes.get("bucket", BUCKET),
        endpoint=changes.get("endpoint", server.endpoint),
        access_key_id=changes.get("access_key_id", server.access_key_id),
        secret_access_key=changes.get("secret_access_key", server.secret_access_key),
        path_style=None,
    )


def _object_store(
    *, bucket: str, endpoint: str, access_key_id: str, secret_access_key: str, path_style: bool | None
) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(
            vendor=storage_pb2.STORAGE_VENDOR_S3,
            bucket=bucket,
            region="us-east-1",
            endpoint=endpoint,
            path_style=path_style,
            credentials=storage_pb2.StorageCredentials(
                access_key_id=access_key_id,
                secret_access_key=storage_pb2.Secret(value=secret_access_key),
            ),
        )
    )
