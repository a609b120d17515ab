"""From an application's settings to its store."""

import asyncio
import random
from pathlib import Path

from roomtape.v1 import storage_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.clients import Account, S3Clients
from roomtape_service.storage.disk import DiskStore
from roomtape_service.storage.s3 import S3Limits, S3Store
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.settings import complete_settings
from roomtape_service.storage.store import Store
from roomtape_service.storage.vendors import VENDORS

__all__ = ["MEMORY_BYTES", "Stores"]

MEMORY_BYTES = 128 << 20
"""Parts in memory, of all uploads together: 16 at once. With the clients' copies about three times that is used."""

_DISK = "disk:"


class Stores:
    """Makes stores; owns what they share. `root` is the folder below which disk stores have theirs."""

    def __init__(
        self,
        root: Path,
        secret_box: SecretBox,
        *,
        clients: S3Clients | None = None,
        memory_bytes: int = MEMORY_BYTES,
        limits: S3Limits | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._root = root
        self._secret_box = secret_box
        self._clients = clients or S3Clients()
        self._memory = MemoryBudget(memory_bytes)
        self._limits = limits or S3Limits()
        self._random = randomness or random.Random()

    def place(self, record: ApplicationRecord) -> tuple[str, str]:
        """Identity of the application's store, and the prefix of its object keys."""
        settings = _stored(record)
        return self.store(settings).identity, settings.prefix

    def of_application(self, record: ApplicationRecord) -> Store:
        """The application's store. Raises SecretKeyError when its credentials can't be opened."""
        return self.store(self._secret_box.open(record.app_id, _stored(record)))

    def of_file(self, record: ApplicationRecord, identity: str) -> Store | None:
        """The store in which a file of the application lies; None when its settings lead there no more.

        Raises SecretKeyError.
        """
        if identity.startswith(_DISK):
            return self.disk(identity.removeprefix(_DISK))
        store = self.of_application(record)
        return store if store.identity == identity else None

    def disk(self, folder: str) -> DiskStore:
        """The folder below the root."""
        return DiskStore(self._root, folder)

    def store(self, settings: storage_pb2.StorageSettings, *, limits: S3Limits | None = None) -> Store:
        """The store of settings that are complete and valid, their secrets in clear."""
        if settings.WhichOneof("store") != "object_store":
            return self.disk(settings.disk.folder)
        wanted = settings.object_store
        vendor = VENDORS[wanted.vendor]
        account = Account(
            vendor=wanted.vendor,
            endpoint=(wanted.endpoint or vendor.endpoint.format(region=wanted.region)).rstrip("/"),
            region=wanted.region,
            path_style=wanted.path_style if wanted.HasField("path_style") else vendor.path_style,
            access_key_id=wanted.credentials.access_key_id,
            secret_access_key=wanted.credentials.secret_access_key.value,
            session_token=wanted.credentials.session_token.value,
        )
        return S3Store(
            wanted.bucket,
            account,
            self._clients,
            self._memory,
            storage_class=wanted.storage_class,
            tags=wanted.tags,
            limits=limits or self._limits,
            randomness=self._random,
        )

    async def remove_stale_parts(self, now_ns: int) -> None:
        """Removes from all disk folders what ended processes left half written. Raises StoreError."""
        folders = await asyncio.to_thread(_folders, self._root)
        for folder in folders:
            await self.disk(folder).remove_stale_parts(now_ns / NANOSECONDS)

    async def aclose(self) -> None:
        """Closes the connections; calls that are running fail."""
        await self._clients.aclose()


def _folders(root: Path) -> list[str]:
    try:
        return [entry.name for entry in root.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _stored(record: ApplicationRecord) -> storage_pb2.StorageSettings:
    settings = storage_pb2.StorageSettings()
    settings.ParseFromString(record.storage)
    return complete_settings(settings, record.app_id)
