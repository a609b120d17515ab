"""What is queued for webhooks, in which order it is due, and what comes of it, on both databases."""

import asyncio
import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, update

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, UnitOfWork, deliveries, outbox
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.outbox import Outcome
from roomtape_service.database.tables import tasks
from tests.support.databases import (
    APP,
    add_application,
    add_tasks,
    clock,
    database,
    database_url,
    postgres,
    warning,
)
from tests.support.postgres import PostgresServer
from tests.support.webhook_rows import add_webhook, append, due, lanes, settle, stored, webhook

__all__ = ["clock", "database", "database_url", "postgres"]

PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
DELIVERED = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD


class Stop(Exception):
    """Ends a unit."""


async def test_each_webhook_gets_what_its_filter_takes(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2"])

    async def label(uow: UnitOfWork) -> None:
        labelled = update(tasks).where(tasks.c.task_id == "2")
        await uow.connection.execute(labelled.values(labels='{"a": "b", "c": "d"}'))

    await database.write(label)
    for webhook_id, wanted in (
        ("all", event_pb2.EventFilter()),
        ("task", event_pb2.EventFilter(task_ids=["2"])),
        ("room", event_pb2.EventFilter(room_ids=["elsewhere"])),
        ("type", event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_WARNING])),
        ("label", event_pb2.EventFilter(labels={"a": "b"})),
    ):
        await add_webhook(database, webhook(webhook_id, wanted=wanted))
    # A vendor's callbacks have no warnings.
    await add_webhook(database, webhook("vendor", kind=webhook_pb2.WEBHOOK_FORMAT_GME))
    await add_application(database, "other")
    await add_webhook(database, webhook("theirs", app_id="other"))
    appended = [await append(database, task_id=task_id) for task_id in ("1", "2", "")]
    expected = {"all": [1, 2, 3], "task": [2], "type": [1, 2, 3], "label": [2]}
    for webhook_id in ("all", "task", "room", "type", "label", "vendor", "theirs"):
        rows = await stored(database, webhook_id)
        assert [row.sequence for row in rows] == expected.get(webhook_id, [])
    found = await due(database, "all", clock.now_ns())
    assert [event_pb2.Event.FromString(each.payload) for each in found] == appended
    assert [each.task_id for each in found] == ["1", "2", ""]


async def test_nothing_is_queued_of_what_did_not_happen(database: Database) -> None:
    woken: list[set[str]] = []
    database.subscribe_deliveries(lambda webhook_ids: woken.append(set(webhook_ids)))

    async def fails(uow: UnitOfWork) -> None:
        await webhook_rows.add(uow, webhook("never"))
        await uow.append(warning("never"))
        raise Stop

    async def works(uow: UnitOfWork) -> None:
        await webhook_rows.add(uow, webhook("one"))
        await uow.append(warning("one"))

    with pytest.raises(Stop):
        await database.write(fails)
    await append(database)
    assert woken == []
    await database.write(works)
    assert woken == [{"one"}]
    assert [row.sequence for row in await stored(database, "one")] == [2]
    assert await stored(database, "never") == []


async def test_units_of_one_commit_see_each_others_webhooks(tmp_path: Path, clock: ManualClock) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()
    await add_application(database, APP)

    async def fails(uow: UnitOfWork) -> None:
        await webhook_rows.add(uow, webhook("never"))
        await uow.append(warning("x"))
        raise Stop

    async def adds(uow: UnitOfWork) -> None:
        await webhook_rows.add(uow, webhook("one"))

    async def deletes(uow: UnitOfWork) -> None:
        await webhook_rows.mark_deleted(uow, await webhook_rows.get(uow.connection, APP, "one"))

    version = database.version
    units = (fails, None, adds, None, deletes, None)
    results = await asyncio.gather(
        *(append(database) if unit is None else database.write(unit) for unit in units),
        return_exceptions=True,
    )
    assert (version, database.version) == (version, (version or 0) + 1)
    assert isinstance(results[0], Stop)
    assert [row.sequence for row in await stored(database, "one")] == [2]
    assert await stored(database, "never") == []
    await database.aclose()


async def test_other_nodes_webhooks_are_seen_at_once(postgres: PostgresServer, clock: ManualClock) -> None:
    with postgres.database("two_nodes") as url:
        one, other = Database(url, clock), Database(url, clock)
        await one.open()
        await other.open()
        await add_application(one, APP)
        for number in range(3):
            await add_webhook(one, webhook(f"w{number}"))
            await append(other)
        for number in range(3):
            rows = await stored(one, f"w{number}")
            assert [row.sequence for row in rows] == list(range(number + 1, 4))
        await one.aclose()
        await other.aclose()


async def test_of_each_lane_the_first_is_due(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2"])
    await add_webhook(database, webhook("w"))
    for task_id in ("1", "1", "2", "", ""):
        await append(database, task_id=task_id)
        clock.advance(1)
    now_ns = clock.now_ns()
    found = await due(database, "w", now_ns)
    assert [each.sequence for each in found] == [1, 3, 4]
    assert [each.sequence for each in await due(database, "w", now_ns, limit=1)] == [1]
    assert [each.sequence for each in await due(database, "w", now_ns, busy=["1", ""])] == [3]
    behind = await database.read(lambda connection: outbox.following(connection, "w", "1", 1, 9))
    assert [each.sequence for each in behind] == [2]
    later_ns = now_ns + 5 * NANOSECONDS
    await settle(database, found[:1], PENDING, attempt_ns=now_ns, next_ns=later_ns, error="HTTP 500")
    await settle(database, found[1:], DELIVERED, attempt_ns=now_ns)
    assert [each.sequence for each in await due(database, "w", now_ns)] == [5]
    assert await database.read(lambda connection: outbox.next_ns(connection, "w", now_ns)) == later_ns
    [again, _] = sorted(await due(database, "w", later_ns), key=lambda each: each.sequence)
    assert (again.sequence, again.attempts, again.delivery_id) == (1, 1, found[0].delivery_id)
    await settle(database, [again], DEAD, attempt_ns=later_ns, error="HTTP 500")
    assert sorted(each.sequence for each in await due(database, "w", now_ns)) == [2, 5]
    row = await database.read(lambda connection: webhook_rows.get(connection, APP, "w"))
    assert (row.last_success_ns, row.last_failure_ns, row.last_error) == (now_ns, later_ns, "HTTP 500")
    standing = (await database.scan(lambda connection: deliveries.standings(connection, ["w"])))["w"]
    assert (standing.pending, standing.dead) == (2, 1)


async def test_many_outcomes_are_stored_at_once(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1"])
    await add_webhook(database, webhook("w"))
    for _ in range(4):
        await append(database, task_id="1")
    [first] = await due(database, "w", clock.now_ns())
    rest = await database.read(lambda connection: outbox.following(connection, "w", "1", 1, 9))
    outcomes = [
        Outcome(first, DELIVERED, 1, status=200),
        Outcome(rest[0], DEAD, 2, status=500, error="x" * 5000),
        Outcome(rest[1], PENDING, 3, error="no answer", next_ns=clock.now_ns() + 7),
    ]
    await database.write(lambda uow: outbox.settle(uow, outcomes), name="test")
    rows = await stored(database, "w")
    assert [row.state for row in rows] == [DELIVERED, DEAD, PENDING, PENDING]
    assert [row.last_attempt_ns for row in rows] == [1, 2, 3, None]
    assert len(rows[1].last_error) == 512
    assert await lanes(database) == [("w", "1", clock.now_ns() + 7)]
    # What is settled twice was settled the first time.
    await settle(database, [first], DEAD, attempt_ns=9, error="late")
    assert (await stored(database, "w"))[0].state == DELIVERED


async def test_lanes_go_with_their_last_delivery_and_come_again(
    database: Database, clock: ManualClock
) -> None:
    await add_webhook(database, webhook("w"))
    for number in range(1, 4):
        await append(database)
        found = await due(database, "w", clock.now_ns())
        assert [each.sequence for each in found] == [number]
        await settle(database, found, DELIVERED, attempt_ns=0)
        assert await lanes(database) == []
    assert await database.read(outbox.receivers) == []


async def test_no_delivery_is_left_without_a_lane(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2"])
    await add_webhook(database, webhook("w"))
    randomness = random.Random(4)
    tasks = ["1", "2", ""]
    appending = asyncio.gather(*(append(database, task_id=randomness.choice(tasks)) for _ in range(60)))
    told: list[int] = []
    while len(told) < 60:
        found = await due(database, "w", clock.now_ns(), limit=2)
        await settle(database, found, DELIVERED, attempt_ns=0)
        told += [each.sequence for each in found]
        if appending.done() and not found:
            break
    await appending
    assert sorted(told) == list(range(1, 61))
    assert await lanes(database) == []


async def test_what_is_queued_again_is_as_new_and_goes_first(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1"])
    row = await add_webhook(database, webhook("w"))
    for _ in range(3):
        await append(database, task_id="1")
    for state in (DEAD, DELIVERED):
        await settle(database, await due(database, "w", clock.now_ns()), state, attempt_ns=5, error="")
    later_ns = clock.now_ns() + 60 * NANOSECONDS
    [third] = await due(database, "w", clock.now_ns())
    await settle(database, [third], PENDING, attempt_ns=6, next_ns=later_ns, error="HTTP 500")
    assert await due(database, "w", clock.now_ns()) == []
    clock.advance(1)
    woken: list[Collection[str]] = []
    database.subscribe_deliveries(woken.append)
    assert await database.write(lambda uow: deliveries.resend_dead(uow, row, 9)) == deliveries.Resent(1, 1)
    assert [set(each) for each in woken] == [{"w"}]
    [first] = await due(database, "w", clock.now_ns())
    assert (first.sequence, first.attempts, first.queue_ns) == (1, 0, clock.now_ns())
    ids = [each.delivery_id for each in await stored(database, "w")]
    assert await database.write(lambda uow: deliveries.resend(uow, row, ids)) == deliveries.Resent(3, 0)
    assert [each.state for each in await stored(database, "w")] == [PENDING] * 3
    # What came of the attempt before says nothing of the one that is asked for.
    await settle(database, [replace(third, queue_ns=0)], DEAD, attempt_ns=7, error="late")
    assert (await stored(database, "w"))[2].state == PENDING
    told = []
    while found := await due(database, "w", clock.now_ns()):
        told += [each.sequence for each in found]
        await settle(database, found, DELIVERED, attempt_ns=8)
    assert told == [1, 2, 3]


async def test_a_disabled_webhook_is_queued_for_and_sent_nothing(
    database: Database, clock: ManualClock
) -> None:
    row = await add_webhook(database, webhook("w"))
    await append(database)
    disabled = replace(row, is_enabled=False)
    disabled = await database.write(lambda uow: webhook_rows.change(uow, disabled, was_enabled=True))
    [under_way] = await stored(database, "w")
    await append(database)
    await database.write(lambda uow: deliveries.resend(uow, disabled, [under_way.delivery_id]))
    assert await due(database, "w", clock.now_ns()) == []
    assert await database.read(outbox.receivers) == []
    assert await lanes(database) == [("w", "", None)]
    enabled = replace(disabled, is_enabled=True)
    await database.write(lambda uow: webhook_rows.change(uow, enabled, was_enabled=False))
    [receiver] = await database.read(outbox.receivers)
    assert (receiver.webhook_id, receiver.due_ns) == ("w", clock.now_ns())
    assert [each.sequence for each in await due(database, "w", clock.now_ns())] == [1]


async def test_an_outcome_after_disabling_makes_nothing_due(database: Database, clock: ManualClock) -> None:
    row = await add_webhook(database, webhook("w"))
    await append(database)
    await append(database)
    [under_way] = await due(database, "w", clock.now_ns())
    disabled = replace(row, is_enabled=False)
    await database.write(lambda uow: webhook_rows.change(uow, disabled, was_enabled=True))
    await settle(database, [under_way], DELIVERED, attempt_ns=1)
    assert [each.state for each in await stored(database, "w")] == [DELIVERED, PENDING]
    assert await lanes(database) == [("w", "", None)]


async def test_nothing_of_a_deleted_webhook_is_due(database: Database, clock: ManualClock) -> None:
    row = await add_webhook(database, webhook("w"))
    await append(database)
    [under_way] = await due(database, "w", clock.now_ns())
    await database.write(lambda uow: webhook_rows.mark_deleted(uow, row))
    await append(database)
    assert await due(database, "w", clock.now_ns()) == []
    assert await database.read(outbox.receivers) == []
    await settle(database, [under_way], PENDING, attempt_ns=1, next_ns=2, error="late")
    assert await due(database, "w", clock.now_ns()) == []
    assert len(await stored(database, "w")) == 1


async def test_events_of_applications_without_webhooks_ask_for_none(database: Database) -> None:
    async def statements(uow: UnitOfWork) -> int:
        seen: list[object] = []
        connection = uow.connection.sync_connection
        event.listen(connection, "before_execute", lambda *executed: seen.append(executed[1]))
        await uow.append(warning("x"))
        return len(seen)

    assert await database.write(statements) == 2
    row = await add_webhook(database, webhook("w"))
    await append(database)
    assert await database.write(statements) == 4
    await database.write(lambda uow: webhook_rows.mark_deleted(uow, row))
    assert await database.write(statements) == 2
