"""Multiparts, their parts, and lanes in trouble, as rows, on both backends."""

import sqlalchemy as sa

from roomtape.v1 import segment_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, lanes, multiparts
from roomtape_service.database.multiparts import DueLeft, MultipartRow, PartRow
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.segments import StartedSegment, insert_segment
from roomtape_service.database.tables import parts, segments
from tests.support.databases import APP, ROOM, add_tasks

TASK = "1"
STORE = "s3:eu:bucket"


async def _add_file(database: Database, number: int = 0) -> str:
    file_id = f"file-{number}"
    single = segment_pb2.RECORDING_KIND_SINGLE

    async def work(unit: UnitOfWork) -> None:
        recording = RecordingRow(f"recording-{number}", TASK, APP, single, "user", 1, None)
        await insert_recording(unit.connection, recording)
        started = StartedSegment(
            file_id=file_id,
            recording_id=f"recording-{number}",
            task_id=TASK,
            app_id=APP,
            room_id=ROOM,
            kind=single,
            user_id="user",
            segment_id=0,
            container=3,
            codec=2,
            spool_path=f"/spool/{file_id}",
            store=STORE,
            object_key=f"{file_id}.wav",
            start_ns=1,
            sample_rate=48_000,
            channels=1,
        )
        await insert_segment(unit.connection, started)

    await database.write(work)
    return file_id


async def _add_part(database: Database, multipart_id: str, part: PartRow) -> None:
    await database.write(lambda unit: multiparts.add_part(unit.connection, multipart_id, part))


async def _begin(database: Database, file_id: str, upload_id: str = "") -> MultipartRow:
    async def work(unit: UnitOfWork) -> MultipartRow:
        row = await multiparts.add(unit, APP, file_id, STORE, f"{file_id}.wav", 100)
        if upload_id:
            await multiparts.set_upload_id(unit.connection, row.multipart_id, upload_id)
        return row

    return await database.write(work)


async def test_parts_are_there_before_their_tags(database: Database) -> None:
    await add_tasks(database, [TASK])
    file_id = await _add_file(database)
    row = await _begin(database, file_id, "upload")
    of_it = row.multipart_id
    first, second = PartRow(1, 100, 0xFFFF_FFFF, ""), PartRow(2, 7, 5, "")
    for part in (first, second):
        await _add_part(database, of_it, part)
    await database.write(lambda unit: multiparts.set_tag(unit.connection, of_it, 2, '"tag"'))
    found = await database.read(lambda connection: multiparts.parts_sent(connection, of_it))
    assert found == {1: first, 2: PartRow(2, 7, 5, '"tag"')}
    again = PartRow(2, 8, 6, "")
    await database.write(lambda unit: multiparts.add_part(unit.connection, of_it, again))
    found = await database.read(lambda connection: multiparts.parts_sent(connection, of_it))
    assert found == {1: first, 2: again}
    known = await database.read(lambda connection: multiparts.find(connection, file_id))
    assert known is not None
    assert (known.multipart_id, known.upload_id, known.part_bytes) == (of_it, "upload", 100)
    await database.write(lambda unit: multiparts.forget(unit.connection, of_it))
    assert await database.read(lambda connection: multiparts.find(connection, file_id)) is None
    assert await database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(parts))) == 0


async def test_what_is_left_is_due_until_it_is_forgotten(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, [TASK])
    moved, lost, growing = [await _add_file(database, number) for number in range(3)]
    old = await _begin(database, moved, "old")
    new = await _begin(database, moved, "new")
    of_lost = await _begin(database, lost)
    await _begin(database, growing, "growing")
    now_ns = clock.now_ns()
    assert await database.read(multiparts.due_left) == [DueLeft(APP, STORE, 0)]

    async def left() -> set[str]:
        rows = await database.read(lambda c: multiparts.left_of(c, APP, STORE, now_ns, 10))
        return {row.multipart_id for row in rows}

    assert await left() == {old.multipart_id}

    async def lose(unit: UnitOfWork) -> None:
        update = sa.update(segments).where(segments.c.file_id == lost)
        await unit.connection.execute(update.values(state=segment_pb2.SEGMENT_STATE_LOST))

    await database.write(lose)
    assert await left() == {old.multipart_id, of_lost.multipart_id}
    await database.write(lambda unit: multiparts.postpone_left(unit.connection, APP, STORE, now_ns + 5))
    assert await left() == set()
    assert await database.read(multiparts.due_left) == [DueLeft(APP, STORE, now_ns + 5)]
    await database.write(lambda unit: multiparts.hasten_left(unit.connection))
    assert await left() == {old.multipart_id, of_lost.multipart_id}
    ids = await database.read(lambda c: multiparts.ids_of_key(c, STORE, f"{moved}.wav"))
    assert ids == {"new"}
    found = await database.read(lambda c: multiparts.find(c, moved))
    assert found is not None
    assert found.multipart_id == new.multipart_id


async def test_a_lane_fails_since_its_first_failure(database: Database) -> None:
    await database.write(lambda unit: lanes.fails(unit.connection, APP, "one", 5))
    await database.write(lambda unit: lanes.fails(unit.connection, APP, "one", 7))
    assert await database.read(lanes.failing_lanes) == [lanes.FailingLane(APP, "one", 5, False)]
    assert await database.write(lambda unit: lanes.use_secondary(unit.connection, APP))
    assert not await database.write(lambda unit: lanes.use_secondary(unit.connection, APP))
    assert await database.write(lambda unit: lanes.takes(unit.connection, APP)) == lanes.FailingLane(
        APP, "one", 5, True
    )
    assert await database.write(lambda unit: lanes.takes(unit.connection, APP)) is None
    assert not await database.write(lambda unit: lanes.use_secondary(unit.connection, APP))
    await database.write(lambda unit: lanes.fails(unit.connection, APP, "one", 8))
    await database.write(lambda unit: lanes.fails(unit.connection, APP, "another", 9))
    assert await database.read(lanes.failing_lanes) == [lanes.FailingLane(APP, "another", 9, False)]
