"""A manifest writer beside a bench of uploads: a task whose segments come into their store by a word."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import sqlalchemy as sa

from roomtape.v1 import event_pb2, segment_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import UnitOfWork, applications, manifests
from roomtape_service.database.manifests import ManifestRow
from roomtape_service.database.tables import segments
from roomtape_service.database.tasks import find_task, stop_task
from roomtape_service.events.build import segment_event, task_event
from roomtape_service.manifest.model import Manifest
from roomtape_service.manifest.reading import is_as_written, read_manifest
from roomtape_service.manifest.writer import ManifestWriter
from roomtape_service.storage.store import StoreError
from roomtape_service.tasks.completion import end_recording
from roomtape_service.tasks.task import task_proto
from tests.support.databases import APP
from tests.support.manifests import assert_valid
from tests.support.spooled import SpooledFile, events_of_type
from tests.support.uploading import TASK, Bench
from tests.support.waiting import eventually

__all__ = ["ManifestBench"]


class ManifestBench:
    """The task `TASK`, its manifest, and writers that run while asked to."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.clock = ManualClock()

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[ManifestWriter]:
        """A writer while the block runs."""
        writer = ManifestWriter(
            self.bench.database,
            self.bench.stores,
            self.clock,
            service_version="1.2.3",
            randomness=random.Random(1),
        )
        task = asyncio.create_task(writer.run())
        try:
            yield writer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def changed(self) -> None:
        """Something of the task has changed, of which no event tells."""
        await self.bench.database.write(lambda uow: manifests.changed(uow, APP, TASK), name="test")

    async def spooled(self) -> SpooledFile:
        """A recording with a segment that is on the spool."""
        (file,) = await self.bench.spool.add(APP, TASK)
        return file

    async def stored(self, file: SpooledFile) -> None:
        """The segment comes into its store, as uploads say it."""

        async def work(uow: UnitOfWork) -> None:
            update = sa.update(segments).where(segments.c.file_id == file.file_id)
            await uow.connection.execute(update.values(state=segment_pb2.SEGMENT_STATE_UPLOADING))
            await uow.connection.execute(update.values(state=segment_pb2.SEGMENT_STATE_UPLOADED))
            segment = segment_pb2.Segment(file_id=file.file_id, task_id=TASK, room_id="room")
            await uow.append(segment_event(event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, APP, segment))
            await manifests.changed(uow, APP, TASK)

        await self.bench.database.write(work, name="test")

    async def stopped(self, *files: SpooledFile) -> None:
        """The task is stopped, and the recordings of the files end."""

        async def work(uow: UnitOfWork) -> None:
            await stop_task(uow.connection, TASK, task_pb2.STOP_REASON_API, uow.now_ns)
            row = await find_task(uow.connection, APP, TASK)
            assert row is not None
            await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_STOPPED, task_proto(row)))
            for file in files:
                await end_recording(uow, file.recording_id)
            await manifests.changed(uow, APP, TASK)

        await self.bench.database.write(work, name="test")

    async def row(self) -> ManifestRow | None:
        """What the database says of the manifest."""
        return await self.bench.database.read(lambda connection: manifests.find(connection, APP, TASK))

    async def is_written(self) -> bool:
        """Whether the manifest that is stored tells of everything."""
        row = await self.row()
        return row is not None and row.written == row.wanted

    async def until_written(self) -> Manifest:
        """The stored manifest when it tells of everything."""
        await eventually(self.is_written, "the manifest is written")
        return await self.read()

    async def read(self) -> Manifest:
        """The stored manifest, valid and as it was written."""
        row = await self.row()
        assert row is not None
        record = await self.bench.database.read(lambda connection: applications.get(connection, APP))
        store = self.bench.stores.of_file(record, row.store)
        assert store is not None
        data = await store.read(row.object_key, 0, row.size_bytes + 1)
        assert len(data) == row.size_bytes
        assert is_as_written(data)
        assert_valid(data)
        return read_manifest(data)

    async def is_there(self, folder: str, key: str) -> bool:
        """Whether a disk store has an object."""
        try:
            await self.bench.stores.disk(folder).head(key)
        except StoreError:
            return False
        return True

    async def state(self) -> int:
        """The task's."""
        row = await self.bench.database.read(lambda connection: find_task(connection, APP, TASK))
        assert row is not None
        return row.state

    async def completions(self) -> Sequence[event_pb2.Event]:
        """How often the task was said to be complete."""
        return await events_of_type(self.bench.database, event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE)
