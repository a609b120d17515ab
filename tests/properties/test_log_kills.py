"""State, events and reply of a unit are there together or not at all, whenever the writing process is killed."""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from roomtape_service.database.tables import applications, events, recordings, tasks
from roomtape_service.database.tables import requests as replies
from tests.support.databases import APP, add_application, add_tasks, stored_texts
from tests.support.log_writer import TASK

KILLS = {"sqlite": 10, "postgresql": 5}
# Processes that have started while others write; importing takes most of their lives.
STARTED_AHEAD = 3
PROGRAM = Path(__file__).parents[1] / "support" / "log_writer.py"


async def test_a_killed_writer_leaves_whole_units(database_url: str) -> None:
    random, kills = Random(1), KILLS[database_url.partition(":")[0]]
    database = Database(database_url, SystemClock())
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, [TASK])
    await database.aclose()
    acknowledged: set[str] = set()
    async with AsyncExitStack() as stack:
        starting = [await start(stack, database_url, number) for number in range(STARTED_AHEAD)]
        for number in range(kills):
            process = starting.pop(0)
            if number + STARTED_AHEAD < kills:
                starting.append(await start(stack, database_url, number + STARTED_AHEAD))
            acknowledged |= await write_and_kill(process, random)
            database = Database(database_url, SystemClock())
            await database.open()
            await check(database, acknowledged)
            await database.aclose()
    assert len(acknowledged) > kills


async def start(stack: AsyncExitStack, url: str, number: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        url,
        str(number),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(end)
    return process


async def write_and_kill(process: asyncio.subprocess.Process, random: Random) -> set[str]:
    """The names of the units that the process said it wrote."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"go\n")
    acknowledged = {await process.stdout.readline() for _ in range(random.randint(1, 60))}
    # Anywhere between two acknowledgements.
    await asyncio.sleep(random.uniform(0, 0.005))
    process.kill()
    acknowledged |= set((await process.stdout.read()).splitlines(keepends=True))
    await process.wait()
    # The last line may have been cut off by the kill.
    return {line.decode().strip() for line in acknowledged if line.endswith(b"\n")}


async def check(database: Database, acknowledged: set[str]) -> None:
    async def read(connection: AsyncConnection) -> None:
        recorded = set(await connection.scalars(select(recordings.c.recording_id)))
        replied = set(await connection.scalars(select(replies.c.request_id)))
        numbers = (
            await connection.execute(
                select(events.c.sequence, events.c.task_sequence).order_by(events.c.sequence)
            )
        ).all()
        assert recorded == replied
        assert recorded >= acknowledged
        assert texts == dict.fromkeys(recorded, 2)
        assert [tuple(row) for row in numbers] == [(n, n) for n in range(1, len(numbers) + 1)]
        assert await connection.scalar(select(applications.c.last_sequence)) == len(numbers)
        assert await connection.scalar(select(tasks.c.last_task_sequence)) == len(numbers)

    while await database.read(others):  # noqa: ASYNC110
        await asyncio.sleep(0)
    texts = Counter(await stored_texts(database))
    await database.read(read)


async def others(connection: AsyncConnection) -> int:
    """How many dead processes a PostgreSQL server still works for."""
    if connection.dialect.name == "sqlite":
        return 0
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return int(await connection.scalar(text(query)) or 0)
