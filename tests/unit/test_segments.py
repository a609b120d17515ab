"""Segments and their uploads as rows, on both backends."""

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import media_pb2, segment_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, uploads
from roomtape_service.database import segments as rows
from roomtape_service.database.recordings import RecordingRow, insert_recording
from tests.support.databases import APP, ROOM, add_application, add_tasks

TASK = "1000"
KEY = "app_room_user/2023-02-09-16-16-45_0_audio.mp3"
STORE = "disk:app"

STARTED = rows.StartedSegment(
    file_id="file",
    recording_id="recording",
    task_id=TASK,
    app_id=APP,
    room_id=ROOM,
    kind=segment_pb2.RECORDING_KIND_SINGLE,
    user_id="user",
    segment_id=0,
    container=media_pb2.CONTAINER_MP3,
    codec=media_pb2.CODEC_MP3,
    spool_path="/spool/file.mp3",
    store=STORE,
    object_key=KEY,
    start_ns=1_000,
    sample_rate=48_000,
    channels=1,
)
STATISTICS = segment_pb2.FrameStatistics(recorded=7, lost=1)
COMPLETED = rows.CompletedSegment(
    start_ns=1_000,
    end_ns=2_000_001_000,
    duration_ns=1_999_999_000,
    sample_rate=48_000,
    channels=2,
    sample_count=96_000,
    encoder_delay=1_105,
    size_bytes=16_000,
    sha256="ab" * 32,
    interrupted=True,
    statistics=STATISTICS.SerializeToString(),
    resume='{"track": [1, 2]}',
)


@pytest.fixture
async def recording(database: Database) -> Database:
    """The database with a task and three recordings of it."""
    await add_tasks(database, [TASK])

    async def work(unit: UnitOfWork) -> None:
        for recording_id in ("recording", "second", "third"):
            single = segment_pb2.RECORDING_KIND_SINGLE
            row = RecordingRow(recording_id, TASK, APP, single, "user", 1_000, None)
            await insert_recording(unit.connection, row)

    await database.write(work)
    return database


async def _insert(database: Database, segment: rows.StartedSegment, *, is_complete: bool = True) -> str:
    async def work(unit: UnitOfWork) -> str:
        key = await rows.insert_segment(unit.connection, segment)
        if is_complete:
            assert await rows.complete_segment(unit.connection, segment.file_id, COMPLETED)
        return key

    return await database.write(work)


async def _find(database: Database, file_id: str = "file") -> rows.SegmentRow:
    row = await database.read(lambda connection: rows.find_segment(connection, APP, file_id))
    assert row is not None
    return row


async def test_a_segment_from_its_start_to_the_store(recording: Database) -> None:
    await _insert(recording, STARTED, is_complete=False)
    started = rows.segment_message(await _find(recording))
    assert started.state == segment_pb2.SEGMENT_STATE_RECORDING
    assert started.start_time.ToNanoseconds() == 1_000
    assert not started.HasField("end_time")
    assert not started.HasField("duration")

    complete = partial(rows.complete_segment, file_id="file", facts=COMPLETED)
    assert await recording.write(lambda unit: complete(unit.connection))
    assert not await recording.write(lambda unit: complete(unit.connection))
    message = rows.segment_message(await _find(recording))
    assert message.state == segment_pb2.SEGMENT_STATE_SPOOLED
    assert message.duration.ToNanoseconds() == COMPLETED.duration_ns
    assert (message.size_bytes, message.sha256, message.interrupted) == (16_000, "ab" * 32, True)
    assert (message.channels, message.encoder_delay_samples) == (2, 1_105)
    assert message.statistics == STATISTICS
    assert (await _find(recording)).resume == COMPLETED.resume

    await recording.write(lambda unit: uploads.begin_upload(unit.connection, "file"))
    await recording.write(lambda unit: uploads.finish_upload(unit.connection, "file", "s3://bucket/key"))
    message = rows.segment_message(await _find(recording))
    assert (message.state, message.url) == (segment_pb2.SEGMENT_STATE_UPLOADED, "s3://bucket/key")


async def test_states_are_not_skipped(recording: Database) -> None:
    await _insert(recording, STARTED)
    assert not await recording.write(lambda unit: uploads.finish_upload(unit.connection, "file", "url"))
    assert (await _find(recording)).state == segment_pb2.SEGMENT_STATE_SPOOLED


async def test_a_name_that_is_taken_gets_a_number(recording: Database) -> None:
    second = replace(STARTED, file_id="second", recording_id="second")
    third = replace(STARTED, file_id="third", recording_id="third")
    elsewhere = replace(STARTED, file_id="elsewhere", segment_id=1, store="disk:other")
    assert await _insert(recording, STARTED) == KEY
    assert await _insert(recording, second) == KEY.replace(".mp3", "-2.mp3")
    assert await _insert(recording, third) == KEY.replace(".mp3", "-3.mp3")
    assert await _insert(recording, elsewhere) == KEY

    row = await _find(recording, "elsewhere")
    move = partial(uploads.move_to_store, row=row, store=STORE, object_key=row.object_key)
    assert await recording.write(lambda unit: move(unit)) == KEY.replace(".mp3", "-4.mp3")
    moved = await _find(recording, "elsewhere")
    assert (moved.store, moved.object_key) == (STORE, KEY.replace(".mp3", "-4.mp3"))


async def test_the_same_file_twice_is_refused(recording: Database) -> None:
    await _insert(recording, STARTED)
    with pytest.raises(DBAPIError):
        await _insert(recording, replace(STARTED, file_id="again"))


async def test_what_is_due(recording: Database, clock: ManualClock) -> None:
    for number, file_id in enumerate(("a", "b", "c")):
        await _insert(recording, replace(STARTED, file_id=file_id, segment_id=number, start_ns=number))
    await _insert(recording, replace(STARTED, file_id="grows", segment_id=9), is_complete=False)
    await add_application(recording, "idle")
    now_ns = clock.now_ns()

    async def due(at_ns: int, *without: str, limit: int = 10) -> list[str]:
        async def read(connection: AsyncConnection) -> list[str]:
            found = await uploads.due_segments(connection, APP, at_ns, without=without, limit=limit)
            return [row.file_id for row in found]

        return await recording.read(read)

    assert await recording.read(uploads.earliest_uploads) == {APP: 0}
    assert await due(now_ns) == ["a", "b", "c"]
    assert await due(now_ns, "a", limit=1) == ["b"]
    await recording.write(lambda unit: uploads.delay_upload(unit.connection, "a", now_ns + 5))
    await recording.write(lambda unit: uploads.postpone_uploads(unit.connection, ["b", "c"], now_ns + 3))
    assert await recording.read(uploads.earliest_uploads) == {APP: now_ns + 3}
    assert await due(now_ns) == []
    assert await due(now_ns + 5) == ["b", "c", "a"]
    assert [(await _find(recording, file_id)).upload_attempts for file_id in ("a", "b")] == [1, 0]
    await recording.write(lambda unit: uploads.hasten_uploads(unit.connection, APP))
    assert await due(now_ns) == ["a", "b", "c"]


async def test_what_a_task_still_waits_for(recording: Database) -> None:
    async def waits() -> bool:
        return await recording.read(lambda connection: rows.has_unstored_segments(connection, TASK))

    assert not await waits()
    await _insert(recording, STARTED, is_complete=False)
    assert await waits()
    await recording.write(lambda unit: rows.complete_segment(unit.connection, "file", COMPLETED))
    await recording.write(lambda unit: uploads.begin_upload(unit.connection, "file"))
    assert await waits()
    await recording.write(lambda unit: uploads.finish_upload(unit.connection, "file", "url"))
    assert not await waits()
    (left,) = await recording.read(uploads.stored_on_spool)
    assert left.file_id == "file"
    await recording.write(lambda unit: uploads.forget_spool_file(unit.connection, "file"))
    assert await recording.read(uploads.stored_on_spool) == []


async def test_segments_in_their_order(recording: Database) -> None:
    for recording_id, segment_id, container in (
        ("second", 0, media_pb2.CONTAINER_WAV),
        ("recording", 1, media_pb2.CONTAINER_MP3),
        ("recording", 0, media_pb2.CONTAINER_WAV),
        ("recording", 0, media_pb2.CONTAINER_MP3),
    ):
        file_id = f"{recording_id}-{segment_id}-{container}"
        segment = replace(
            STARTED,
            file_id=file_id,
            recording_id=recording_id,
            segment_id=segment_id,
            container=container,
            object_key=file_id,
        )
        await _insert(recording, segment)

    def ids(found: list[rows.SegmentRow]) -> list[str]:
        return [row.file_id for row in found]

    all_ids = ["recording-0-1", "recording-0-3", "recording-1-1", "second-0-3"]
    of_task = await recording.read(lambda connection: rows.segments_of_task(connection, TASK))
    assert ids([*of_task]) == all_ids
    of_recording = await recording.read(
        lambda connection: rows.segments_of_recording(connection, "recording")
    )
    assert ids([*of_recording]) == all_ids[:3]
    of_number = await recording.read(
        lambda connection: rows.segments_of_recording(connection, "recording", 0)
    )
    assert ids([*of_number]) == all_ids[:2]


async def test_finding_files(recording: Database) -> None:
    for number, file_id in enumerate(("a", "b", "C_", "spooled")):
        segment = replace(
            STARTED, file_id=file_id, segment_id=number, object_key=f"{file_id}/x.mp3", start_ns=number
        )
        await _insert(recording, segment, is_complete=False)
        facts = replace(COMPLETED, start_ns=number)
        await recording.write(partial(_complete, file_id=file_id, facts=facts))
    for file_id in ("a", "b", "C_"):
        await recording.write(partial(_store, file_id=file_id))
    for wanted, found in (
        (rows.SegmentFilter(), ["a", "b", "C_"]),
        (rows.SegmentFilter(key_prefix="a"), ["a"]),
        (rows.SegmentFilter(key_prefix="c"), []),
        (rows.SegmentFilter(key_prefix="C_"), ["C_"]),
        (rows.SegmentFilter(key_prefix="_"), []),
        (rows.SegmentFilter(user_id="user", task_id=TASK, room_id=ROOM), ["a", "b", "C_"]),
        (rows.SegmentFilter(user_id="other"), []),
        (rows.SegmentFilter(starts_before_ns=1), ["a"]),
        (rows.SegmentFilter(ends_after_ns=2_000_001_000), []),
        (rows.SegmentFilter(ends_after_ns=2_000_000_999), ["a", "b", "C_"]),
    ):
        assert await _list(recording, wanted) == found, wanted
    assert await _list(recording, rows.SegmentFilter(), after=(0, "a")) == ["b", "C_"]


async def _list(
    database: Database, wanted: rows.SegmentFilter, after: tuple[int, str] | None = None
) -> list[str]:
    async def read(connection: AsyncConnection) -> list[str]:
        listed = await rows.list_stored_segments(connection, APP, wanted, after=after, limit=10)
        return [row.file_id for row in listed]

    return await database.read(read)


async def _complete(unit: UnitOfWork, *, file_id: str, facts: rows.CompletedSegment) -> None:
    await rows.complete_segment(unit.connection, file_id, facts)


async def _store(unit: UnitOfWork, *, file_id: str) -> None:
    await uploads.begin_upload(unit.connection, file_id)
    await uploads.finish_upload(unit.connection, file_id, "url")
