"""Segments that lie complete on a spool, as a worker and its node leave them."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, media_pb2, segment_pb2
from roomtape_service.database import Database, UnitOfWork, applications
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.segments import (
    CompletedSegment,
    SegmentRow,
    StartedSegment,
    complete_segment,
    find_segment,
    insert_segment,
)
from roomtape_service.database.tables import events
from roomtape_service.rules.naming import EXTENSIONS, single_key
from roomtape_service.storage.stores import Stores
from tests.support.databases import ROOM

__all__ = ["SpooledFile", "TestSpool", "events_of_type"]

_START_NS = 1_675_930_605_000_000_000
_CODECS = {
    media_pb2.CONTAINER_MP3: media_pb2.CODEC_MP3,
    media_pb2.CONTAINER_OGG: media_pb2.CODEC_OPUS,
    media_pb2.CONTAINER_WAV: media_pb2.CODEC_PCM_S16LE,
}


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file on the spool and its row."""

    app_id: str
    file_id: str
    object_key: str
    path: Path
    data: bytes
    recording_id: str = ""
    container: media_pb2.Container.ValueType = media_pb2.CONTAINER_UNSPECIFIED


class TestSpool:
    """Makes segments in the folder of one generation; tasks and applications must be there."""

    __test__ = False

    def __init__(self, database: Database, stores: Stores, folder: Path) -> None:
        self.folder = folder
        self._database = database
        self._stores = stores
        self._count = 0
        self._token = uuid4().hex

    async def add(
        self,
        app_id: str,
        task_id: str,
        *,
        containers: Sequence[media_pb2.Container.ValueType] = (media_pb2.CONTAINER_MP3,),
        size_bytes: int = 20_000,
        user_id: str = "",
    ) -> list[SpooledFile]:
        """A recording with one SPOOLED segment of random bytes, in each of the containers."""
        files = await self.begin(
            app_id, task_id, containers=containers, size_bytes=size_bytes, user_id=user_id
        )
        for file in files:
            file.path.write_bytes(file.data)
        await self.complete(*files)
        return files

    async def begin(
        self,
        app_id: str,
        task_id: str,
        *,
        containers: Sequence[media_pb2.Container.ValueType] = (media_pb2.CONTAINER_MP3,),
        size_bytes: int = 20_000,
        user_id: str = "",
    ) -> list[SpooledFile]:
        """A recording with one segment that grows: empty files that are to become random bytes."""
        self._count += 1
        recording_id = f"recording{self._count}"
        # Buckets are those of all tests.
        user_id = user_id or f"user{self._count}-{self._token}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "lock").touch()
        (self.folder / f"{recording_id}-000000.journal").write_bytes(b"journal")
        files: list[SpooledFile] = []

        async def work(unit: UnitOfWork) -> None:
            files.clear()
            record = await applications.get(unit.connection, app_id)
            store, prefix = self._stores.place(record)
            single = segment_pb2.RECORDING_KIND_SINGLE
            await insert_recording(
                unit.connection,
                RecordingRow(recording_id, task_id, app_id, single, user_id, _START_NS, None),
            )
            for container in containers:
                path = self.folder / f"{recording_id}-000000.{EXTENSIONS[container]}"
                data = random.Random(f"{path.name}").randbytes(size_bytes)
                path.touch()
                file_id = f"{app_id}-{path.name}"
                started = StartedSegment(
                    file_id=file_id,
                    recording_id=recording_id,
                    task_id=task_id,
                    app_id=app_id,
                    room_id=ROOM,
                    kind=single,
                    user_id=user_id,
                    segment_id=0,
                    container=container,
                    codec=_CODECS[container],
                    spool_path=str(path),
                    store=store,
                    object_key=single_key(prefix, app_id, ROOM, user_id, _START_NS, 0, container),
                    start_ns=_START_NS + self._count,
                    sample_rate=48_000,
                    channels=1,
                )
                key = await insert_segment(unit.connection, started)
                files.append(SpooledFile(app_id, file_id, key, path, data, recording_id, container))

        await self._database.write(work)
        return files

    async def complete(self, *files: SpooledFile) -> None:
        """The files are complete on the spool: their rows say that they hold their `data`."""

        async def work(unit: UnitOfWork) -> None:
            for file in files:
                await complete_segment(unit.connection, file.file_id, _completed(file.data, _START_NS))

        await self._database.write(work)

    async def complete_as(self, files: Sequence[SpooledFile], size_bytes: int, sha256: str) -> None:
        """The files are complete, with other bytes than their `data`."""
        facts = replace(_completed(b"", _START_NS), size_bytes=size_bytes, sha256=sha256)

        async def work(unit: UnitOfWork) -> None:
            for file in files:
                await complete_segment(unit.connection, file.file_id, facts)

        await self._database.write(work)

    async def row(self, file: SpooledFile) -> SegmentRow:
        """The file's row as it is now."""
        row = await self._database.read(
            lambda connection: find_segment(connection, file.app_id, file.file_id)
        )
        assert row is not None
        return row

    async def is_uploaded(self, *files: SpooledFile) -> bool:
        """Whether all of the files are UPLOADED and gone from the spool."""
        rows = [await self.row(file) for file in files]
        uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
        return all(row.state == uploaded and row.spool_path is None for row in rows)


async def events_of_type(
    database: Database, event_type: event_pb2.EventType.ValueType
) -> Sequence[event_pb2.Event]:
    """The events of a type, in the order of the log."""

    async def read(connection: AsyncConnection) -> Sequence[event_pb2.Event]:
        query = sa.select(events.c.payload).where(events.c.type == event_type)
        query = query.order_by(events.c.app_id, events.c.sequence)
        return [event_pb2.Event.FromString(payload) for payload in await connection.scalars(query)]

    return await database.read(read)


def _completed(data: bytes, start_ns: int) -> CompletedSegment:
    return CompletedSegment(
        start_ns=start_ns,
        end_ns=start_ns + 1_000_000_000,
        duration_ns=1_000_000_000,
        sample_rate=48_000,
        channels=1,
        sample_count=48_000,
        encoder_delay=0,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        interrupted=False,
        statistics=segment_pb2.FrameStatistics(recorded=50).SerializeToString(),
        resume="{}",
    )
