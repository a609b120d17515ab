"""Databases for tests: each test that takes `database_url` or `database` runs on SQLite and on PostgreSQL."""

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, applications
from roomtape_service.database.tables import events, rooms, tasks
from tests.support.postgres import PostgresServer, postgres_server

__all__ = [
    "APP",
    "ROOM",
    "add_application",
    "add_tasks",
    "clock",
    "database",
    "database_url",
    "postgres",
    "stored_events",
    "warning",
]

APP = "app"
ROOM = "room"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server of all tests of this run."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(f"test_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """An open database with the application `APP`."""
    opened = Database(database_url, clock)
    await opened.open()
    await add_application(opened, APP)
    yield opened
    await opened.aclose()


async def add_application(database: Database, app_id: str) -> None:
    """Makes an application with an open room `ROOM`."""

    async def work(uow: UnitOfWork) -> None:
        await applications.add(uow, applications.ApplicationRecord(app_id))
        await uow.connection.execute(
            insert(rooms).values(
                room_key=f"{app_id}/{ROOM}", app_id=app_id, room_id=ROOM, clock=1, epoch_ns=0, create_ns=0
            )
        )

    await database.write(work)


async def add_tasks(
    database: Database,
    task_ids: Sequence[str],
    *,
    app_id: str = APP,
    state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_RECORDING,
) -> None:
    """Makes tasks, without events."""

    async def work(uow: UnitOfWork) -> None:
        for task_id in task_ids:
            await uow.connection.execute(
                insert(tasks).values(
                    task_id=task_id,
                    app_id=app_id,
                    room_id=ROOM,
                    room_key=f"{app_id}/{ROOM}",
                    client_task_id="",
                    state=state,
                    mode=task_pb2.RECORD_MODE_SINGLE,
                    subscription=b"",
                    output=b"",
                    labels="{}",
                    start_ns=uow.now_ns,
                )
            )

    await database.write(work)


def warning(text: str, *, app_id: str = APP, task_id: str = "") -> event_pb2.Event:
    """An event that says `text`."""
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_WARNING,
        app_id=app_id,
        room_id=ROOM,
        task_id=task_id,
        warning=event_pb2.WarningDetail(message=text),
    )


async def stored_texts(database: Database) -> list[str]:
    """What the warnings in the database say, in the order of the log."""
    return [event.warning.message for event in await stored_events(database)]


async def stored_events(database: Database) -> list[event_pb2.Event]:
    """The events in the database, in the order of the log."""

    async def work(connection: AsyncConnection) -> list[event_pb2.Event]:
        rows = await connection.scalars(select(events.c.payload).order_by(events.c.app_id, events.c.sequence))
        return [event_pb2.Event.FromString(row) for row in rows]

    return await database.read(work)
