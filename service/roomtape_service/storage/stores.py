"""From an application's settings to its store."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from roomtape.v1 import storage_pb2
from roomtape_service.clock import NANOSECONDS, Clock, SystemClock
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.clients import Account, S3Clients
from roomtape_service.storage.credentials import CredentialSources, FixedKeys, KeyRing, Keys
from roomtape_service.storage.disk import DiskStore
from roomtape_service.storage.kinds import StoreKinds
from roomtape_service.storage.offer import Offer
from roomtape_service.storage.s3 import S3Limits, S3Store
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.settings import complete_settings, secondary_after_ns
from roomtape_service.storage.store import Store
from roomtape_service.storage.vendors import VENDORS

__all__ = ["MEMORY_BYTES", "Destination", "Destinations", "Stores"]

MEMORY_BYTES = 40 << 20
"""Parts in memory, of all uploads together: 5 at once. With the clients' copies about three times that is used."""

_DISK = "disk:"
# Each copies a file at a time; those of a disk that hangs stay in its calls.
_DISK_THREADS = 8


@dataclass(frozen=True, slots=True)
class Destination:
    """A store, and the prefix of object keys there."""

    store: Store
    prefix: str


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where an application's files go: to the second while the first took nothing for `second_after_ns`."""

    first: Destination
    second: Destination | None
    second_after_ns: int


class Stores:
    """Makes stores; owns what they share. `root` is the folder below which disk stores have theirs."""

    def __init__(
        self,
        root: Path,
        secret_box: SecretBox,
        *,
        clients: S3Clients | None = None,
        sources: CredentialSources | None = None,
        kinds: StoreKinds | None = None,
        clock: Clock | None = None,
        memory_bytes: int = MEMORY_BYTES,
        limits: S3Limits | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._root = root
        self._disk_threads = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk-store")
        self._secret_box = secret_box
        self._clients = clients or S3Clients()
        self._sources = sources or CredentialSources()
        self._kinds = kinds or StoreKinds()
        self._clock = clock or SystemClock()
        self._memory = MemoryBudget(memory_bytes)
        self._limits = limits or S3Limits()
        self._random = randomness or random.Random()

    def place(self, record: ApplicationRecord) -> tuple[str, str]:
        """Identity of the application's store, and the prefix of its object keys."""
        settings = _stored(record)
        return self.store(settings).identity, settings.prefix

    def of_application(self, record: ApplicationRecord) -> Store:
        """The application's store. Raises SecretKeyError when its credentials can't be opened."""
        return self.store(self._secret_box.open(record.app_id, _stored(record)), app_id=record.app_id)

    def destinations(self, record: ApplicationRecord) -> Destinations:
        """The application's stores. Raises SecretKeyError when credentials can't be opened."""
        settings = self._secret_box.open(record.app_id, _stored(record))
        first = Destination(self.store(settings, app_id=record.app_id), settings.prefix)
        if not settings.HasField("secondary"):
            return Destinations(first, None, 0)
        secondary = settings.secondary
        second = Destination(self.store(secondary, app_id=record.app_id), secondary.prefix)
        return Destinations(first, second, secondary_after_ns(secondary))

    def of_file(self, record: ApplicationRecord, identity: str) -> Store | None:
        """The store in which a file of the application lies; None when its settings lead there no more.

        Raises SecretKeyError.
        """
        if identity.startswith(_DISK):
            return self.disk(identity.removeprefix(_DISK))
        places = self.destinations(record)
        for place in (places.first, places.second):
            if place is not None and place.store.identity == identity:
                return place.store
        return None

    @property
    def memory(self) -> MemoryBudget:
        """What all uploads together may hold."""
        return self._memory

    def disk(self, folder: str) -> DiskStore:
        """The folder below the root."""
        return DiskStore(self._root, folder, self._disk_threads)

    def offer(self, app_id: str) -> Offer:
        """What settings of the application may make use of."""
        return Offer(self._sources.usable(app_id), self._kinds, self._clock.now_ns())

    def store(
        self,
        settings: storage_pb2.StorageSettings | storage_pb2.SecondaryStore,
        *,
        app_id: str = "",
        limits: S3Limits | None = None,
    ) -> Store:
        """The store of settings that are complete and valid, their secrets in clear; not the second store in them.

        Raises StoreRefused for one of a kind that is not installed any more.
        """
        match settings.WhichOneof("store"):
            case "object_store":
                return self._bucket(settings.object_store, app_id, limits)
            case "custom":
                secrets = {name: secret.value for name, secret in settings.custom.secrets.items()}
                return self._kinds.store(settings.custom.kind, settings.custom.options, secrets)
            case _:
                return self.disk(settings.disk.folder)

    def _bucket(self, wanted: storage_pb2.ObjectStore, app_id: str, limits: S3Limits | None) -> S3Store:
        vendor = VENDORS[wanted.vendor]
        account = Account(
            vendor=wanted.vendor,
            endpoint=(wanted.endpoint or vendor.endpoint.format(region=wanted.region)).rstrip("/"),
            region=wanted.region,
            path_style=wanted.path_style if wanted.HasField("path_style") else vendor.path_style,
            source=wanted.credentials.source,
        )
        return S3Store(
            wanted.bucket,
            account,
            self._keys(wanted.credentials, app_id),
            self._clients,
            self._memory,
            storage_class=wanted.storage_class,
            tags=wanted.tags,
            limits=limits or self._limits,
            randomness=self._random,
        )

    def keys_of(self, source: str, app_id: str) -> KeyRing:
        """The keys that a source gives the application."""
        return self._sources.ring(source, app_id)

    def _keys(self, credentials: storage_pb2.StorageCredentials, app_id: str) -> KeyRing:
        if credentials.source:
            return self.keys_of(credentials.source, app_id)
        expire_time = credentials.expire_time
        keys = Keys(
            credentials.access_key_id,
            credentials.secret_access_key.value,
            credentials.session_token.value,
            expire_time.seconds * NANOSECONDS + expire_time.nanos
            if credentials.HasField("expire_time")
            else None,
        )
        return FixedKeys(keys, self._clock)

    async def remove_stale_parts(self, now_ns: int) -> None:
        """Removes from all disk folders what ended processes left half written. Raises StoreError."""
        folders = await asyncio.to_thread(_folders, self._root)
        for folder in folders:
            await self.disk(folder).remove_stale_parts(now_ns / NANOSECONDS)

    async def aclose(self) -> None:
        """Closes the connections; calls that are running fail."""
        await self._clients.aclose()
        await self._kinds.aclose()
        self._disk_threads.shutdown(wait=False, cancel_futures=True)


def _folders(root: Path) -> list[str]:
    try:
        return [entry.name for entry in root.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _stored(record: ApplicationRecord) -> storage_pb2.StorageSettings:
    settings = storage_pb2.StorageSettings()
    settings.ParseFromString(record.storage)
    return complete_settings(settings, record.app_id)
