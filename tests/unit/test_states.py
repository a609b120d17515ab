"""The edges of tasks and segments, and that the database refuses every other, on both backends."""

from functools import partial
from itertools import product

import pytest
from sqlalchemy import Executable, insert, update
from sqlalchemy.exc import DBAPIError

from roomtape.v1 import segment_pb2, task_pb2
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database.states import SEGMENT_EDGES, TASK_EDGES, TRIGGER_MESSAGE, sources
from roomtape_service.database.tables import recordings, segments, tasks
from tests.support.databases import APP, ROOM, add_tasks

TASK = "1"


async def execute(statement: Executable, uow: UnitOfWork) -> None:
    await uow.connection.execute(statement)


async def test_tasks_move_along_their_edges_only(database: Database) -> None:
    states = list(TASK_EDGES)
    edges = {(source, target): f"{source}-{target}" for source, target in product(states, states)}
    for (source, _), task_id in edges.items():
        await add_tasks(database, [task_id], state=source)
    for (source, target), task_id in edges.items():
        move = update(tasks).where(tasks.c.task_id == task_id).values(state=target)
        if target in TASK_EDGES[source] or target == source:
            await database.write(partial(execute, move))
        else:
            with pytest.raises(DBAPIError, match=TRIGGER_MESSAGE):
                await database.write(partial(execute, move))
    assert sources(TASK_EDGES, task_pb2.TASK_STATE_IDLE) == [task_pb2.TASK_STATE_RECORDING]


async def test_segments_move_along_their_edges_only(database: Database) -> None:
    await add_tasks(database, [TASK])
    states = list(SEGMENT_EDGES)

    async def add(uow: UnitOfWork) -> None:
        await uow.connection.execute(
            insert(recordings).values(
                recording_id="r", task_id=TASK, app_id=APP, kind=1, user_id="u", start_ns=0
            )
        )
        for source, target in product(states, states):
            await uow.connection.execute(
                insert(segments).values(
                    file_id=f"{source}-{target}",
                    recording_id="r",
                    task_id=TASK,
                    app_id=APP,
                    room_id=ROOM,
                    kind=1,
                    user_id="u",
                    segment_id=source,
                    container=target,
                    codec=1,
                    state=source,
                    start_ns=0,
                )
            )

    await database.write(add)
    for source, target in product(states, states):
        move = update(segments).where(segments.c.file_id == f"{source}-{target}").values(state=target)
        if target in SEGMENT_EDGES[source] or target == source:
            await database.write(partial(execute, move))
        else:
            with pytest.raises(DBAPIError, match=TRIGGER_MESSAGE):
                await database.write(partial(execute, move))


def test_every_state_of_the_contract_has_its_edges() -> None:
    assert sorted(TASK_EDGES) == [number for number in task_pb2.TaskState.values() if number]
    assert sorted(SEGMENT_EDGES) == [number for number in segment_pb2.SegmentState.values() if number]
