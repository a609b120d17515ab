"""Databases of every earlier shape open with all that is in them."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from roomtape.v1 import segment_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, uploads
from roomtape_service.database.segments import SegmentRow, find_segment, segment_message
from roomtape_service.database.tables import metadata, segments

APP = "app"
LABELS = {"1": {"course": "maths", "leçon": "3 & 4"}, "2": {}, "3": {"course": "physics"}}
TASK_STATES = (
    task_pb2.TASK_STATE_WAITING,
    task_pb2.TASK_STATE_RECORDING,
    task_pb2.TASK_STATE_IDLE,
    task_pb2.TASK_STATE_FINALIZING,
    task_pb2.TASK_STATE_COMPLETED,
    task_pb2.TASK_STATE_FAILED,
)
SEGMENT_STATES = (
    segment_pb2.SEGMENT_STATE_RECORDING,
    segment_pb2.SEGMENT_STATE_SPOOLED,
    segment_pb2.SEGMENT_STATE_UPLOADING,
    segment_pb2.SEGMENT_STATE_UPLOADED,
)

Rows = Mapping[str, Sequence[Mapping[str, object]]]


def _task(number: int, state: int) -> dict[str, object]:
    return {
        "task_id": str(number),
        "app_id": APP,
        "room_id": "room",
        "room_key": "room-key",
        "client_task_id": f"mine-{number}",
        "state": state,
        "mode": task_pb2.RECORD_MODE_SINGLE,
        "subscription": b"\x0a\x01a",
        "output": b"\x10\x02",
        "labels": json.dumps(LABELS.get(str(number), {})),
        "stop_reason": 1,
        "start_ns": 1_700_000_000_000_000_000 + number,
        "stop_ns": 2,
        "complete_ns": 3,
        "idle_since_ns": 4,
        "last_task_sequence": 5,
    }


def _segment(number: int, state: int) -> dict[str, object]:
    return {
        "file_id": f"file-{number}",
        "recording_id": "recording",
        "task_id": "1",
        "app_id": APP,
        "room_id": "room",
        "kind": segment_pb2.RECORDING_KIND_SINGLE,
        "user_id": "user",
        "segment_id": number,
        "container": 1,
        "codec": 3,
        "state": state,
        "spool_path": f"/spool/{number}.mp3",
        "object_key": f"app_room_user/{number}.mp3",
        "url": "",
        "store": "disk:app",
        "start_ns": 1_700_000_000_000_000_000 + number,
        "end_ns": 1_700_000_001_000_000_000 + number,
        "duration_ns": 1_000_000_000,
        "sample_rate": 48_000,
        "channels": 2,
        "sample_count": 48_000,
        "encoder_delay": 1_105,
        "size_bytes": 12_345,
        "sha256": "ab" * 32,
        "interrupted": bool(number % 2),
        "statistics": b"\x08\x05",
        "resume": '{"session/track": [7, 9]}',
        "upload_attempts": number,
        "next_attempt_ns": number,
    }


FIRST: Rows = {
    "meta": [{"key": "epoch", "value": "0123456789abcdef"}],
    "applications": [
        {
            "app_id": APP,
            "display_name": "An application",
            "service_state": 1,
            "profile": 1,
            "storage": b"\x0a\x00",
            "create_ns": 1,
            "update_ns": 2,
            "revision": 3,
            "last_sequence": 1,
            "compacted_sequence": 0,
        }
    ],
    "requests": [
        {
            "app_id": APP,
            "request_id": "request",
            "method": "StartRecord",
            "payload_hash": b"hash",
            "response": b"response",
            "create_ns": 1,
        }
    ],
    "events": [
        {
            "app_id": APP,
            "sequence": 1,
            "task_id": "1",
            "task_sequence": 1,
            "room_id": "room",
            "type": 7,
            "event_ns": 1,
            "payload": b"payload",
        }
    ],
    "rooms": [
        {
            "room_key": "room-key",
            "app_id": APP,
            "room_id": "room",
            "clock": 1,
            "epoch_ns": 1,
            "create_ns": 1,
            "close_ns": None,
        }
    ],
    "participants": [
        {
            "participant_key": f"participant-{leave_ns}",
            "room_key": "room-key",
            "app_id": APP,
            "room_id": "room",
            "user_id": "user",
            "publish_session_id": "session",
            "tracks": b"\x0a\x00",
            "join_ns": 1,
            "leave_ns": leave_ns,
        }
        for leave_ns in (None, 5)
    ],
    "tasks": [_task(number, state) for number, state in enumerate(TASK_STATES, start=1)],
    "recordings": [
        {
            "recording_id": "recording",
            "task_id": "1",
            "app_id": APP,
            "kind": 1,
            "user_id": "user",
            "start_ns": 1,
            "end_ns": None,
            "next_segment": 4,
        }
    ],
    "segments": [_segment(number, state) for number, state in enumerate(SEGMENT_STATES)],
}
"""A row in every table of the first shape, of tasks and segments one in each state."""


def _make_first(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "roomtape_service.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    found = sa.MetaData()
    found.reflect(connection)
    assert set(FIRST) | {"alembic_version"} == set(found.tables)
    for name, rows in FIRST.items():
        table = found.tables[name]
        assert all(set(row) == set(table.columns.keys()) for row in rows)
        connection.execute(sa.insert(table), list(rows))


@pytest.fixture
async def first(database_url: str) -> str:
    """The URL of a database of the first shape."""
    url = make_url(database_url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.get_backend_name()]
    engine = create_async_engine(url.set(drivername=driver))
    async with engine.begin() as connection:
        await connection.run_sync(_make_first)
    await engine.dispose()
    return database_url


async def test_nothing_of_the_first_shape_is_lost(first: str, clock: ManualClock) -> None:
    database = Database(first, clock)
    await database.open()
    try:
        for name, rows in FIRST.items():
            columns = [metadata.tables[name].c[column] for column in rows[0]]

            async def read(
                connection: AsyncConnection, columns: list[sa.Column[object]] = columns
            ) -> list[dict[str, object]]:
                return [dict(row._mapping) for row in await connection.execute(sa.select(*columns))]

            found = await database.read(read)
            assert sorted(found, key=str) == sorted((dict(row) for row in rows), key=str), name
        assert database.epoch == "0123456789abcdef"
        measured = sa.select(metadata.tables["events"].c.logged_bytes)
        assert await database.read(lambda connection: connection.scalar(measured)) == len(b"payload")
        assert await database.read(_labels) == {
            (task_id, key, value) for task_id, pairs in LABELS.items() for key, value in pairs.items()
        }
    finally:
        await database.aclose()


async def test_what_comes_from_the_first_shape_goes_on(first: str, clock: ManualClock) -> None:
    """Segments reach their store and the states that are new; what was refused is refused."""
    database = Database(first, clock)
    await database.open()
    try:
        message = segment_message(await _find(database, "file-0"))
        assert (message.joined_segments, message.HasField("expire_time")) == (0, False)
        assert await database.read(uploads.earliest_uploads) == {APP: 1}
        assert [row.file_id for row in await database.read(uploads.stored_on_spool)] == ["file-3"]
        await database.write(lambda unit: uploads.begin_upload(unit.connection, "file-1"))
        assert await database.write(lambda unit: uploads.finish_upload(unit.connection, "file-1", "url", 9))
        assert (await _find(database, "file-1")).expire_ns == 9
        await _set_state(database, "file-3", segment_pb2.SEGMENT_STATE_EXPIRED)
        await _set_state(database, "file-2", segment_pb2.SEGMENT_STATE_ABANDONED)
        for file_id, state in (
            ("file-0", segment_pb2.SEGMENT_STATE_UPLOADED),
            ("file-3", segment_pb2.SEGMENT_STATE_RECORDING),
        ):
            with pytest.raises(DBAPIError):
                await _set_state(database, file_id, state)
        again = {**_segment(0, segment_pb2.SEGMENT_STATE_SPOOLED), "file_id": "again", "object_key": "again"}

        async def insert(unit: UnitOfWork) -> None:
            await unit.connection.execute(sa.insert(segments).values(**again))

        with pytest.raises(IntegrityError):
            await database.write(insert)
    finally:
        await database.aclose()


async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
    async with engine.begin() as connection:
        await connection.run_sync(_make_first)
        await connection.execute(sa.text("UPDATE tasks SET labels = 'no JSON' WHERE task_id = '1'"))
    await engine.dispose()
    with pytest.raises(json.JSONDecodeError):
        await Database(url, clock).open()
    with sqlite3.connect(tmp_path / "test.db") as connection_after:
        tables = {
            row[0] for row in connection_after.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert connection_after.execute("SELECT count(*) FROM segments").fetchone() == (len(SEGMENT_STATES),)
        assert connection_after.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    connection_after.close()
    assert tables == {*FIRST, "alembic_version"}


async def _labels(connection: AsyncConnection) -> set[tuple[str, str, str]]:
    rows = await connection.execute(sa.text("SELECT task_id, key, value FROM task_labels"))
    return {(row[0], row[1], row[2]) for row in rows}


async def _find(database: Database, file_id: str) -> SegmentRow:
    row = await database.read(lambda connection: find_segment(connection, APP, file_id))
    assert row is not None
    return row


async def _set_state(database: Database, file_id: str, state: segment_pb2.SegmentState.ValueType) -> None:
    async def work(unit: UnitOfWork) -> None:
        update = sa.update(segments).where(segments.c.file_id == file_id)
        await unit.connection.execute(update.values(state=state))

    await database.write(work)
