"""The library searched by what it can be searched by, among thousands of files, on both databases."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import segment_pb2
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database.labels import add_labels
from roomtape_service.database.segments import (
    SegmentFilter,
    SegmentRow,
    list_stored_segments,
    stored_segments,
)
from roomtape_service.database.tables import recordings, segments
from tests.support.databases import APP, add_application, add_tasks

TASKS = 60
FILES = 5000
SECOND_NS = 1_000_000_000
UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED


@dataclass(frozen=True)
class Entry:
    """A file as the test knows it."""

    file_id: str
    key: str
    room_id: str
    user_id: str
    task_id: str
    start_ns: int
    end_ns: int
    labels: Mapping[str, str]
    is_listed: bool


@dataclass
class Shelf:
    """A database full of files."""

    database: Database
    entries: list[Entry]

    async def find(self, wanted: SegmentFilter, page: int = 700) -> list[str]:
        """The ids of all pages."""
        found: list[SegmentRow] = []
        while True:
            after = (found[-1].start_ns, found[-1].file_id) if found else None

            async def read(
                connection: AsyncConnection, after: tuple[int, str] | None = after
            ) -> list[SegmentRow]:
                return list(await list_stored_segments(connection, APP, wanted, after=after, limit=page))

            rows = await self.database.scan(read)
            found += rows
            if len(rows) < page:
                return [row.file_id for row in found]

    def expected(self, holds: Callable[[Entry], bool]) -> list[str]:
        """By looking at each."""
        fitting = [entry for entry in self.entries if entry.is_listed and holds(entry)]
        return [each.file_id for each in sorted(fitting, key=lambda each: (each.start_ns, each.file_id))]


def _labels(task: int) -> dict[str, str]:
    labels = {"team": f"team{task % 5}", "number": str(task)}
    if task % 7 == 0:
        labels["rare/key"] = "ja, ✓ 100%_"
    return labels


@pytest.fixture
async def shelf(database: Database) -> Shelf:
    dice = random.Random(7)
    await add_application(database, "other")
    entries: list[Entry] = []
    task_ids = [f"{1000 + task}" for task in range(TASKS)]
    await add_tasks(database, task_ids)
    await add_tasks(database, ["99"], app_id="other")

    async def label(uow: UnitOfWork) -> None:
        for task, task_id in enumerate(task_ids):
            await add_labels(uow.connection, APP, task_id, _labels(task))
        await add_labels(uow.connection, "other", "99", _labels(0))
        for task_id, app_id in (*((each, APP) for each in task_ids), ("99", "other")):
            await uow.connection.execute(
                sa.insert(recordings).values(
                    recording_id=task_id, task_id=task_id, app_id=app_id, kind=1, user_id="", start_ns=0
                )
            )

    await database.write(label)
    rows: list[dict[str, object]] = []
    for number in range(FILES):
        app_id = "other" if number % 10 == 9 else APP
        task = dice.randrange(TASKS)
        task_id = "99" if app_id == "other" else task_ids[task]
        state = UPLOADED if number % 8 else segment_pb2.SEGMENT_STATE_DELETED
        # Many start at the same moment: pages must not lose any of them.
        start_ns = dice.randrange(400) * SECOND_NS
        entry = Entry(
            file_id=f"{dice.getrandbits(60):015x}",
            key=f"{'Year' if number % 2 else 'year'}_{number % 13}%/{number:05}.mp3",
            room_id=f"room{task % 11}",
            user_id=f"user{number % 301}",
            task_id=task_id,
            start_ns=start_ns,
            end_ns=start_ns + 5 * SECOND_NS,
            labels=_labels(task),
            is_listed=app_id == APP and state == UPLOADED,
        )
        entries.append(entry)
        rows.append(
            {
                "file_id": entry.file_id,
                "recording_id": task_id,
                "task_id": task_id,
                "app_id": app_id,
                "room_id": entry.room_id,
                "kind": 1,
                "user_id": entry.user_id,
                "segment_id": number,
                "container": 1,
                "codec": 1,
                "state": state,
                "object_key": entry.key,
                "store": "disk:x",
                "start_ns": start_ns,
                "end_ns": entry.end_ns,
            }
        )

    async def fill(uow: UnitOfWork) -> None:
        await uow.connection.execute(sa.insert(segments), rows)

    await database.write(fill)

    async def analyze(uow: UnitOfWork) -> None:
        await uow.connection.execute(sa.text("ANALYZE segments"))
        await uow.connection.execute(sa.text("ANALYZE task_labels"))

    await database.write(analyze)
    return Shelf(database, entries)


async def test_every_condition_holds_alone_and_together(shelf: Shelf) -> None:
    for wanted, holds in (
        (SegmentFilter(), lambda e: True),
        (SegmentFilter(key_prefix="year_1"), lambda e: e.key.startswith("year_1")),
        (SegmentFilter(key_prefix="Year_1%/"), lambda e: e.key.startswith("Year_1%/")),
        (SegmentFilter(key_prefix="year_1_"), lambda e: False),
        (SegmentFilter(room_id="room3"), lambda e: e.room_id == "room3"),
        (SegmentFilter(user_id="user17"), lambda e: e.user_id == "user17"),
        (SegmentFilter(task_id="1005"), lambda e: e.task_id == "1005"),
        (SegmentFilter(labels={"team": "team2"}), lambda e: e.labels["team"] == "team2"),
        (SegmentFilter(labels={"rare/key": "ja, ✓ 100%_"}), lambda e: "rare/key" in e.labels),
        (SegmentFilter(labels={"rare/key": "ja"}), lambda e: False),
        (SegmentFilter(labels={"Team": "team2"}), lambda e: False),
        (
            SegmentFilter(labels={"team": "team2", "number": "7"}),
            lambda e: e.labels["number"] == "7",
        ),
        (SegmentFilter(labels={"team": "team1", "number": "7"}), lambda e: False),
        (
            SegmentFilter(ends_after_ns=100 * SECOND_NS, starts_before_ns=120 * SECOND_NS),
            lambda e: e.end_ns > 100 * SECOND_NS and e.start_ns < 120 * SECOND_NS,
        ),
        (
            SegmentFilter(
                key_prefix="year_",
                room_id="room2",
                ends_after_ns=50 * SECOND_NS,
                labels={"team": "team4"},
            ),
            lambda e: (
                e.key.startswith("year_")
                and e.room_id == "room2"
                and e.end_ns > 50 * SECOND_NS
                and e.labels["team"] == "team4"
            ),
        ),
    ):
        assert await shelf.find(wanted) == shelf.expected(holds), wanted
    assert await shelf.find(SegmentFilter(room_id="room3"), page=7) == shelf.expected(
        lambda e: e.room_id == "room3"
    )


async def test_each_search_goes_by_an_index(shelf: Shelf) -> None:
    for wanted in (
        SegmentFilter(),
        SegmentFilter(key_prefix="year_12%/00"),
        SegmentFilter(room_id="room3"),
        SegmentFilter(user_id="user17"),
        SegmentFilter(task_id="1005"),
        SegmentFilter(labels={"rare/key": "ja, ✓ 100%_", "number": "7"}),
        SegmentFilter(ends_after_ns=100 * SECOND_NS, starts_before_ns=120 * SECOND_NS),
    ):

        async def explain(connection: AsyncConnection, wanted: SegmentFilter = wanted) -> str:
            name = connection.dialect.name
            query = stored_segments(name, APP, wanted, after=(SECOND_NS, "5"), limit=101)
            text = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            word = "EXPLAIN QUERY PLAN" if name == "sqlite" else "EXPLAIN"
            return "\n".join(str(row) for row in await connection.exec_driver_sql(f"{word} {text}"))

        plan = await shelf.database.scan(explain)
        assert "ix_segments_" in plan, plan
        assert "Seq Scan on segments" not in plan, plan
        assert "SCAN segments" not in plan, plan
