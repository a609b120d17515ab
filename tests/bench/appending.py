"""Events appended for a while: by our units of work, and by the same statements in the same transactions, bare.

Units are one event of a task each, and so many wait for their commit at any time. On SQLite these make one transaction,
on PostgreSQL each is one, on as many connections as we have.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from tests.bench.history import event_of
from tests.support.databases import add_application, add_tasks

__all__ = ["ours", "postgres", "sqlite"]

APP = "bench"

_IN_FLIGHT = 64
_CONNECTIONS = 10
_TASKS = 8
_NEXT = "UPDATE applications SET last_sequence = last_sequence + 1 WHERE app_id = {} RETURNING last_sequence"
_NEXT_OF_TASK = (
    "UPDATE tasks SET last_task_sequence = last_task_sequence + 1 "
    "WHERE task_id = {} RETURNING last_task_sequence"
)
_INSERT = (
    "INSERT INTO events (app_id, sequence, task_id, task_sequence, room_id, type, event_ns, payload, logged_bytes) "
    "VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {})"
)


async def ours(url: str, seconds: float) -> float:
    """Events per second by units of work, in a new database."""
    database = await _made(url)

    async def append(number: int) -> None:
        event = event_of(APP, number, _task_id(number))
        await database.write(lambda uow: uow.append(event), name="bench")

    try:
        return await _per_second(append, seconds)
    finally:
        await database.aclose()


async def sqlite(url: str, seconds: float) -> float:
    """Events per second by bare statements, in a new database."""
    await (await _made(url)).aclose()
    payload = event_of(APP, 1, _task_id(1)).SerializeToString()
    next_one, next_of_task = _NEXT.format("?"), _NEXT_OF_TASK.format("?")
    insert_one = _INSERT.format(*"?????????")
    path = Path(str(make_url(url).database))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        started, count, written = time.monotonic(), 0, 0
        while time.monotonic() < started + seconds:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(_IN_FLIGHT):
                connection.execute("SAVEPOINT unit")
                task_id = _task_id(count)
                (sequence,) = connection.execute(next_one, (APP,)).fetchone()
                (task_sequence,) = connection.execute(next_of_task, (task_id,)).fetchone()
                written += len(payload)
                row = (APP, sequence, task_id, task_sequence, "room", 22, time.time_ns(), payload, written)
                connection.execute(insert_one, row)
                connection.execute("RELEASE unit")
                count += 1
            connection.execute("COMMIT")
        return count / (time.monotonic() - started)


async def postgres(url: str, seconds: float) -> float:
    """Events per second by bare statements, in a new database."""
    await (await _made(url)).aclose()
    payload = event_of(APP, 1, _task_id(1)).SerializeToString()
    next_one, next_of_task = _NEXT.format("$1"), _NEXT_OF_TASK.format("$1")
    insert_one = _INSERT.format(*(f"${number}" for number in range(1, 10)))
    pool = await asyncpg.create_pool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS)

    async def append(number: int) -> None:
        task_id = _task_id(number)
        async with pool.acquire() as connection, connection.transaction():
            sequence = await connection.fetchval(next_one, APP)
            task_sequence = await connection.fetchval(next_of_task, task_id)
            row = (APP, sequence, task_id, task_sequence, "room", 22, time.time_ns(), payload, sequence)
            await connection.execute(insert_one, *row)

    try:
        return await _per_second(append, seconds)
    finally:
        await pool.close()


async def _per_second(append: Callable[[int], Awaitable[None]], seconds: float) -> float:
    started, count = time.monotonic(), 0

    async def again() -> None:
        nonlocal count
        while time.monotonic() < started + seconds:
            count += 1
            await append(count)

    await asyncio.gather(*(again() for _ in range(_IN_FLIGHT)))
    return count / (time.monotonic() - started)


async def _made(url: str) -> Database:
    """A database with an application and tasks."""
    database = Database(url, SystemClock())
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, [_task_id(number) for number in range(_TASKS)], app_id=APP)
    return database


def _task_id(number: int) -> str:
    return str(7_340_000_000_000_000_000 + number % _TASKS)
