"""Uploads that run while a test asks for it, over a database, a spool and stores; and crashes wherever they wait."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, storage_pb2
from roomtape_service.clock import Clock, SystemClock
from roomtape_service.database import Database, UnitOfWork, applications
from roomtape_service.database.tables import multiparts, parts
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.s3 import S3Limits
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.store import BegunParts, Store, StoredObject
from roomtape_service.storage.stores import Destinations, Stores
from roomtape_service.storage.upload import Uploads
from tests.support.databases import APP, add_application, add_tasks
from tests.support.rclone import Loopback
from tests.support.spooled import SpooledFile, TestSpool, events_of_type
from tests.support.stores import SECRET_KEY
from tests.support.waiting import eventually

__all__ = ["OTHER", "OTHER_TASK", "QUICK", "TASK", "Bench", "Steps", "upload_bench"]

TASK = "1000"
OTHER = "other"
OTHER_TASK = "2000"

# Tests of stores that fail must not wait for patience that real stores deserve.
QUICK = S3Limits(call_seconds=2.0, least_bytes_per_second=1 << 20, attempts=1)

Hook = Callable[[UnitOfWork, str, str], Awaitable[None]]
T = TypeVar("T")


async def _nothing(unit: UnitOfWork, app_id: str, task_id: str) -> None:
    """The task waits for nothing."""


class Steps:
    """Counts the places where uploads wait for a database or a store, and lets them wait for ever at one of them.

    What is cancelled there does nothing more, as if the process had died.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.last: int | str | None = None
        """At which place to stop: its number, from 1, or its name; None: nowhere."""
        self.is_there = asyncio.Event()
        """Set when it is reached."""
        self.held = ""
        """Places whose names begin so wait until it is changed."""
        self.waiting: list[str] = []
        """Which places wait so."""

    async def pass_by(self, name: str) -> None:
        """Here is one."""
        if self.held and name.startswith(self.held):
            self.waiting.append(name)
            await eventually(lambda: not name.startswith(self.held or "\0"), f"{name} goes on")
            self.waiting.remove(name)
        if self.is_there.is_set():
            await asyncio.Event().wait()
        self.names.append(name)
        if self.last in (len(self.names), name):
            self.is_there.set()
            await asyncio.Event().wait()

    def begin_again(self, last: int | str | None = None) -> None:
        """Forgets what was passed, and stops at another place."""
        self.names.clear()
        self.last = last
        self.is_there = asyncio.Event()


class _SteppedDatabase(Database):
    def __init__(self, url: str, clock: Clock, steps: Steps) -> None:
        super().__init__(url, clock)
        self._steps = steps

    async def write(self, work: Callable[[UnitOfWork], Awaitable[T]], *, name: str = "") -> T:
        step = name or getattr(work, "__qualname__", "write")
        await self._steps.pass_by(f"before {step}")
        result = await super().write(work, name=name)
        await self._steps.pass_by(f"after {step}")
        return result


class SteppedStore:
    """A store that passes steps before and after what changes it."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self._store = store
        self._steps = steps

    @property
    def identity(self) -> str:
        return self._store.identity

    def url(self, key: str) -> str:
        return self._store.url(key)

    async def put(self, key: str, source: Path, sha256: str, content_type: str) -> StoredObject:
        return await self._step("put", lambda: self._store.put(key, source, sha256, content_type))

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        return await self._step("put_bytes", lambda: self._store.put_bytes(key, data, content_type))

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = PART_BYTES) -> str:
        return await self._step(
            "begin_parts", lambda: self._store.begin_parts(key, content_type, part_bytes=part_bytes)
        )

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        return await self._step(
            f"put_part {number}", lambda: self._store.put_part(key, upload_id, number, data)
        )

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        return await self._step(
            "complete_parts", lambda: self._store.complete_parts(key, upload_id, tags, size_bytes)
        )

    async def abort_parts(self, key: str, upload_id: str) -> None:
        await self._step("abort_parts", lambda: self._store.abort_parts(key, upload_id))

    async def list_parts_begun(self, key_prefix: str) -> Sequence[BegunParts]:
        return await self._store.list_parts_begun(key_prefix)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[StoredObject]:
        return await self._store.list(prefix, after=after, limit=limit)

    async def head(self, key: str) -> StoredObject:
        return await self._store.head(key)

    async def read(self, key: str, start: int, length: int) -> bytes:
        return await self._store.read(key, start, length)

    async def delete(self, key: str) -> None:
        await self._step("delete", lambda: self._store.delete(key))

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        return await self._store.playback_url(key, lifetime_seconds, headers)

    async def _step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        await self._steps.pass_by(f"before {name}")
        result = await call()
        await self._steps.pass_by(f"after {name}")
        return result


class Bench:
    """A database, a spool and stores, and uploads that run while asked to."""

    def __init__(self, database: Database, stores: Stores, spool: TestSpool, steps: Steps) -> None:
        self.database = database
        self.stores = stores
        self.spool = spool
        self.steps = steps

    @asynccontextmanager
    async def uploads(
        self,
        hook: Hook = _nothing,
        *,
        remove: Callable[..., None] = remove_stored,
        part_bytes: int = PART_BYTES,
        clock: Clock | None = None,
    ) -> AsyncIterator[Uploads]:
        """Uploads while the block runs."""
        uploads = Uploads(
            self.database,
            self.stores,
            clock or SystemClock(),
            hook,
            remove,
            randomness=random.Random(1),
            part_bytes=part_bytes,
        )
        task = asyncio.create_task(uploads.run())
        try:
            yield uploads
        finally:
            await uploads.aclose()
            await task

    async def set_storage(self, settings: storage_pb2.StorageSettings, app_id: str = APP) -> None:
        """As UpdateApplication does."""
        sealed = SecretBox(SECRET_KEY).seal(app_id, settings).SerializeToString()

        async def work(unit: UnitOfWork) -> None:
            record = await applications.get(unit.connection, app_id)
            await applications.change(unit, replace(record, storage=sealed))

        await self.database.write(work)

    async def store_of(self, file: SpooledFile) -> Store:
        """The store that the file's row names."""
        row = await self.spool.row(file)
        record = await self.database.read(lambda connection: applications.get(connection, file.app_id))
        store = self.stores.of_file(record, row.store)
        assert store is not None
        return store

    async def stored(self, file: SpooledFile) -> bytes:
        """What the store that the row names has of the file."""
        row = await self.spool.row(file)
        return await (await self.store_of(file)).read(row.object_key, 0, len(file.data) + 1)

    async def codes(self, file: SpooledFile) -> list[str]:
        """Error codes that watchers of the file were told."""
        return [
            event.segment.error_code
            for event in await events_of_type(self.database, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_DELAYED)
            if event.segment.segment.file_id == file.file_id
        ]

    async def multiparts(self) -> list[tuple[str, bool]]:
        """Files with a multipart, and whether it is left."""

        async def read(connection: AsyncConnection) -> list[tuple[str, bool]]:
            rows = await connection.execute(sa.select(multiparts.c.file_id, multiparts.c.is_left))
            return [(row[0], bool(row[1])) for row in rows]

        return await self.database.read(read)

    async def tags(self) -> dict[int, str]:
        """Of the parts of all multiparts, by number."""

        async def read(connection: AsyncConnection) -> dict[int, str]:
            rows = await connection.execute(sa.select(parts.c.number, parts.c.tag))
            return {row[0]: row[1] for row in rows}

        return await self.database.read(read)


class _SteppedStores(Stores):
    steps: Steps

    def destinations(self, record: applications.ApplicationRecord) -> Destinations:
        places = super().destinations(record)
        second = places.second and replace(places.second, store=self._stepped(places.second.store))
        return replace(
            places, first=replace(places.first, store=self._stepped(places.first.store)), second=second
        )

    def _stepped(self, store: Store) -> Store:
        return SteppedStore(store, self.steps)


@asynccontextmanager
async def upload_bench(folder: Path, authority: Path | None = None) -> AsyncIterator[Bench]:
    """A bench with the tasks `TASK` of `APP` and `OTHER_TASK` of `OTHER`, whose stores are folders."""
    steps = Steps()
    database = _SteppedDatabase(f"sqlite:///{folder}/test.db", SystemClock(), steps)
    await database.open()
    await add_application(database, APP)
    await add_application(database, OTHER)
    await add_tasks(database, [TASK])
    await add_tasks(database, [OTHER_TASK], app_id=OTHER)
    clients = S3Clients(resolver=Loopback(), ca_file=authority, unread_seconds=10.0)
    stores = _SteppedStores(folder / "files", SecretBox(SECRET_KEY), clients=clients, limits=QUICK)
    stores.steps = steps
    yield Bench(database, stores, TestSpool(database, stores, folder / "spool" / "generation"), steps)
    await stores.aclose()
    await database.aclose()
