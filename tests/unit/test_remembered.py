"""Answers that are remembered: none is older than a reply, on both backends."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import task_pb2
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database import tasks as task_rows
from roomtape_service.rpc.remembered import RememberedAnswers
from roomtape_service.tasks.task import task_proto
from tests.support.databases import APP, add_tasks

TASK = "1"


class _Asker:
    """Asks for a task, and counts how often the database was asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers = RememberedAnswers[task_pb2.Task](database)
        self.reads = 0

    async def state(self) -> int:
        async def read(connection: AsyncConnection) -> task_pb2.Task:
            self.reads += 1
            row = await task_rows.find_task(connection, APP, TASK)
            assert row is not None
            return task_proto(row)

        return (await self._answers.get(TASK, read)).state


async def _move(database: Database, state: task_pb2.TaskState.ValueType) -> None:
    async def work(uow: UnitOfWork) -> None:
        await task_rows.set_state(uow.connection, TASK, state, None)

    await database.write(work)


async def test_a_reply_is_seen_by_who_asks_after_it(database: Database) -> None:
    await add_tasks(database, [TASK], state=task_pb2.TASK_STATE_RECORDING)
    asker = _Asker(database)
    assert await asker.state() == task_pb2.TASK_STATE_RECORDING
    for state in [task_pb2.TASK_STATE_IDLE, task_pb2.TASK_STATE_RECORDING] * 8:
        await _move(database, state)
        assert await asker.state() == state


async def test_nobody_remembers_what_was_read_while_others_wrote(database: Database) -> None:
    await add_tasks(database, [TASK], state=task_pb2.TASK_STATE_RECORDING)
    asker = _Asker(database)
    for state in [task_pb2.TASK_STATE_IDLE, task_pb2.TASK_STATE_RECORDING] * 8:
        asking = [asyncio.create_task(asker.state()) for _ in range(4)]
        await _move(database, state)
        assert await asker.state() == state
        await asyncio.gather(*asking)
        assert await asker.state() == state


async def test_sqlite_is_asked_once_while_nothing_is_written(database: Database) -> None:
    await add_tasks(database, [TASK])
    asker = _Asker(database)
    for _ in range(5):
        await asker.state()
    # Others may write to PostgreSQL: there every call reads.
    assert asker.reads == (1 if database.version is not None else 5)
