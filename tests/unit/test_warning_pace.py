"""Warnings of many recordings at once are told as one, which says for how many it stands."""

from pathlib import Path

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.ids import CountedIds
from roomtape_service.recording import protocol
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.segments import SegmentFacts
from roomtape_service.tasks.warnings import PacedWarning, WarningPace
from tests.support.databases import APP, add_tasks
from tests.support.spooled import events_of_type
from tests.support.stores import make_stores

FULL = error_pb2.ERROR_REASON_SPOOL_FULL


async def test_a_task_is_warned_once_a_minute_for_each_reason(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    await add_tasks(database, ["1", "2"])

    async def add_recordings(uow: UnitOfWork) -> None:
        for task_id in ("1", "2"):
            for number in range(20):
                row = RecordingRow(f"{task_id}-{number}", task_id, APP, 1, f"user{number}", 0, None)
                await insert_recording(uow.connection, row)

    await database.write(add_recordings)
    stores = make_stores(tmp_path / "files")
    facts = Facts(database, SegmentFacts(stores, CountedIds()), lambda: None, tmp_path)

    async def report(task_id: str, reason: str, count: int = 20) -> None:
        for number in range(count):
            facts.report(protocol.Warning(f"{task_id}-{number}", reason, "the disk"))
        await facts.drain()

    await report("1", "SPOOL_FULL")
    await report("1", "SPOOL_UNWRITABLE", 1)
    await report("2", "SPOOL_FULL")
    clock.advance(59)
    await report("1", "SPOOL_FULL", 3)
    clock.advance(1)
    await report("1", "SPOOL_FULL", 1)
    told = [
        (event.task_id, error_pb2.ErrorReason.Name(event.warning.reason)[13:], event.warning.count)
        for event in await events_of_type(database, event_pb2.EVENT_TYPE_WARNING)
    ]
    assert told == [
        ("1", "SPOOL_FULL", 1),
        ("1", "SPOOL_UNWRITABLE", 1),
        ("2", "SPOOL_FULL", 1),
        ("1", "SPOOL_FULL", 23),
    ]
    await stores.aclose()


def test_what_is_not_durable_was_not_told() -> None:
    pace = WarningPace(interval_ns=10)

    def decide(at_ns: int, *, fails: bool = False) -> int:
        paced = PacedWarning(pace)
        count = paced.count("1", FULL, at_ns)
        # A unit that is taken back by the database runs again, and does the same.
        assert paced.count("1", FULL, at_ns + 1) == count
        if fails:
            paced.failed()
        return count

    assert decide(0, fails=True) == 1
    assert decide(0) == 1
    assert [decide(1), decide(2), decide(3, fails=True)] == [0, 0, 0]
    assert decide(12, fails=True) == 3
    assert decide(12) == 3
    assert decide(13) == 0
    assert decide(22) == 2
