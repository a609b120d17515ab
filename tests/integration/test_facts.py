"""What workers report becomes rows and events, also when the database took nothing for a while."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest_asyncio

from roomtape.v1 import segment_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.recordings import RecordingRow, find_recording, insert_recording
from roomtape_service.database.segments import segments_of_recording
from roomtape_service.ids import CountedIds
from roomtape_service.recording import protocol
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.segments import SegmentFacts
from tests.support.databases import APP, add_application, add_tasks
from tests.support.waiting import eventually

TASK, RECORDING = "1000", "recording"
T = TypeVar("T")


class Refusing(Database):
    """Takes nothing as long as it has to refuse something."""

    refusals = 0

    async def write(self, work: Callable[[UnitOfWork], Awaitable[T]], *, name: str = "") -> T:
        if self.refusals:
            self.refusals -= 1
            raise sqlite3.OperationalError("database or disk is full")
        return await super().write(work, name=name)


class Disk:
    """One place for everybody."""

    def place(self, record: ApplicationRecord) -> tuple[str, str]:
        return f"disk:{record.app_id}", ""


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Refusing]:
    database = Refusing(f"sqlite:///{tmp_path}/node.db", ManualClock())
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, [TASK])
    row = RecordingRow(RECORDING, TASK, APP, segment_pb2.RECORDING_KIND_SINGLE, "user", 1, None)
    await database.write(lambda unit: insert_recording(unit.connection, row))
    yield database
    await database.aclose()


def completed() -> protocol.SegmentCompleted:
    file = protocol.CompletedFile(protocol.Container.WAV, "/spool/a.wav", 100, "00", 0, 48_000)
    return protocol.SegmentCompleted(
        recording_id=RECORDING,
        segment=0,
        start_ns=1,
        end_ns=2,
        sample_rate=48_000,
        channels=1,
        sample_count=48_000,
        interrupted=False,
        files=(file,),
        statistics=protocol.FrameStatistics(),
        resume={},
    )


async def test_facts_wait_until_the_database_takes_them(database: Refusing) -> None:
    facts = Facts(
        database, SegmentFacts(Disk(), CountedIds()), lambda: None, Path("spool"), waiting_seconds=0.01
    )
    database.refusals = 8
    facts.report(completed())
    facts.report(protocol.RecordingStopped(RECORDING))

    async def has_ended() -> bool:
        row = await database.read(lambda connection: find_recording(connection, RECORDING))
        return row is not None and row.end_ns is not None

    await eventually(has_ended, "the recording has ended")
    await facts.drain()


async def test_a_segment_whose_start_was_not_stored_is_not_lost(database: Refusing) -> None:
    facts = Facts(database, SegmentFacts(Disk(), CountedIds()), lambda: None, Path("spool"))
    facts.report(completed())
    await facts.drain()
    rows = await database.read(lambda connection: segments_of_recording(connection, RECORDING))
    assert [row.state for row in rows] == [segment_pb2.SEGMENT_STATE_SPOOLED]
