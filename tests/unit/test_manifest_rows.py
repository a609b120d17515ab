"""Which manifests are due, and what is kept for them, on both databases."""

import sqlalchemy as sa

from roomtape.v1 import event_pb2, segment_pb2, task_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, UnitOfWork, manifests
from roomtape_service.database.gaps import GapRow, InterruptionRow, add_gap, add_interruption
from roomtape_service.database.history import history_of_task
from roomtape_service.database.manifests import WrittenManifest
from roomtape_service.database.participants import (
    MuteRow,
    ParticipantRow,
    add_mutes,
    insert_participant,
    mark_left,
)
from roomtape_service.database.recordings import RecordingRow, end_recording, insert_recording
from roomtape_service.database.scopes import ScopeRow, add_scope
from roomtape_service.database.tables import tasks
from tests.support.databases import APP, ROOM, add_tasks

FINALIZING = task_pb2.TASK_STATE_FINALIZING
SECOND = NANOSECONDS


async def due(database: Database, now_ns: int, *without: str) -> list[str]:
    rows = await database.read(lambda rows: manifests.due(rows, now_ns, without=without, limit=10))
    return [row.task_id for row in rows]


async def test_what_is_due(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2", "3"])
    now_ns = clock.now_ns()
    assert await due(database, now_ns) == []
    assert await database.write(manifests.add_missing) == 3
    assert await database.write(manifests.add_missing) == 0
    assert await due(database, now_ns) == ["1", "2", "3"]
    assert await due(database, now_ns, APP) == []

    def written(count: int) -> WrittenManifest:
        return WrittenManifest(count, False, "disk:app", "k", "file:///k", 5, "0" * 64, now_ns)

    async def write(uow: UnitOfWork) -> None:
        for task_id in ("1", "2", "3"):
            await manifests.written(uow, task_id, written(1), now_ns + 10 * SECOND)
        await manifests.changed(uow, APP, "2")
        await manifests.changed(uow, APP, "3")
        await manifests.changed(uow, APP, "3")

    await database.write(write)
    assert await due(database, now_ns) == []
    assert await database.read(lambda rows: manifests.earliest(rows, now_ns)) == now_ns + 10 * SECOND
    assert await database.read(lambda rows: manifests.earliest(rows, now_ns + 10 * SECOND)) is None
    assert await due(database, now_ns + 10 * SECOND) == ["2", "3"]
    row = await database.read(lambda rows: manifests.find(rows, APP, "3"))
    assert row is not None
    assert (row.wanted, row.written, row.sha256) == (3, 1, "0" * 64)
    assert await database.read(lambda rows: manifests.find(rows, "other", "3")) is None


async def test_the_last_is_due_at_once_unless_it_failed(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2"])
    now_ns = clock.now_ns()

    async def begin(uow: UnitOfWork) -> None:
        kind = segment_pb2.RECORDING_KIND_SINGLE
        await insert_recording(uow.connection, RecordingRow("r", "2", APP, kind, "ada", 1, None))
        await uow.connection.execute(sa.update(tasks).where(tasks.c.task_id == "2").values(state=FINALIZING))
        for task_id in ("1", "2"):
            await manifests.changed(uow, APP, task_id)
            await manifests.delay(uow, task_id, now_ns + 10 * SECOND)
        await manifests.hasten(uow, APP)
        later = WrittenManifest(0, False, "", "", "", 0, "", now_ns)
        for task_id in ("1", "2"):
            await manifests.written(uow, task_id, later, now_ns + 10 * SECOND)

    await database.write(begin)
    assert await due(database, now_ns) == []
    await database.write(lambda uow: end_recording(uow.connection, "r", 2))
    assert await due(database, now_ns) == ["2"]
    await database.write(lambda uow: manifests.delay(uow, "2", now_ns + 5 * SECOND))
    assert await due(database, now_ns) == []
    assert await due(database, now_ns + 5 * SECOND) == ["2"]
    await database.write(lambda uow: manifests.hasten(uow, APP))
    assert await due(database, now_ns) == ["2", "1"]


async def test_what_is_kept_of_a_task(database: Database) -> None:
    await add_tasks(database, ["1"])
    gap = GapRow("1", "r", "ada", 5, 6, event_pb2.GAP_REASON_INTERRUPTED)
    interruption = InterruptionRow("1", "r", 0, event_pb2.INTERRUPTION_CAUSE_NODE_LOST, 7)

    async def keep(uow: UnitOfWork) -> list[bool]:
        row = ParticipantRow("p", f"{APP}/{ROOM}", APP, ROOM, "ada", "s", b"", 1, 2)
        await insert_participant(uow.connection, row)
        await mark_left(uow.connection, "p", 9, 10)
        old = ParticipantRow("old", f"{APP}/{ROOM}", APP, ROOM, "ben", "s", b"", 1)
        await insert_participant(uow.connection, old)
        await add_mutes(uow.connection, [MuteRow("p", "mic", 3, True), MuteRow("p", "mic", 3, False)])
        await add_scope(uow, ScopeRow("1", 1, task_pb2.RECORD_MODE_SINGLE, b""))
        await add_scope(uow, ScopeRow("1", 1, task_pb2.RECORD_MODE_MIXED, b""))
        return [
            await add_gap(uow, gap),
            await add_gap(uow, gap),
            await add_interruption(uow, interruption),
            await add_interruption(uow, interruption),
        ]

    assert await database.write(keep) == [True, False, True, False]
    known = await database.scan(lambda rows: history_of_task(rows, APP, "1"))
    assert list(known.gaps) == [gap]
    assert list(known.interruptions) == [interruption]
    assert [(who.user_id, who.join_ns, who.leave_ns) for who in known.presences] == [
        ("ben", 1, None),
        ("ada", 2, 10),
    ]
    assert [(mute.time_ns, mute.muted) for mute in known.mutes] == [(3, False)]
    assert [scope.mode for scope in known.scopes] == [task_pb2.RECORD_MODE_MIXED]
    assert known.room.room_id == ROOM
    assert (known.segments, known.joined, known.recordings) == ([], [], [])
