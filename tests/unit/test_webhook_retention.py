"""How long rows of webhooks are kept, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, UnitOfWork, deliveries, events
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.tables import webhook_deliveries, webhook_keys, webhook_lanes, webhooks
from roomtape_service.database.webhooks import KeyRow
from roomtape_service.webhooks.retention import WebhookRetention
from tests.support.databases import APP, add_tasks, clock, database, database_url, postgres, warning
from tests.support.webhook_rows import add_webhook, append, due, lanes, settle, stored, webhook

__all__ = ["clock", "database", "database_url", "postgres"]

PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
DELIVERED = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD


@pytest.fixture
async def retention(database: Database, clock: ManualClock) -> AsyncIterator[WebhookRetention]:
    running = WebhookRetention(database, clock, keep_seconds=3600, keep_delivered=3)
    yield running
    await running.aclose()


async def rows(database: Database) -> list[int]:
    """How many rows each table has."""

    async def read(connection: AsyncConnection) -> list[int]:
        tables = (webhooks, webhook_keys, webhook_deliveries, webhook_lanes)
        return [
            await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables
        ]

    return await database.read(read)


async def test_deliveries_that_were_made_go_by_age_and_count(
    database: Database, clock: ManualClock, retention: WebhookRetention
) -> None:
    await add_webhook(database, webhook("w"))
    for _ in range(5):
        await append(database)
        await settle(database, await due(database, "w", clock.now_ns()), DELIVERED, attempt_ns=0)
        clock.advance(1)
    await append(database)
    await retention.tick()
    assert [(row.sequence, row.state) for row in await stored(database, "w")] == [
        (3, DELIVERED),
        (4, DELIVERED),
        (5, DELIVERED),
        (6, PENDING),
    ]
    clock.advance(3600 - 2)
    await retention.tick()
    assert [row.sequence for row in await stored(database, "w")] == [4, 5, 6]
    clock.advance(3600)
    await retention.tick()
    assert [row.sequence for row in await stored(database, "w")] == [6]
    assert [each.sequence for each in await due(database, "w", clock.now_ns())] == [6]


async def test_dead_letters_stay_as_long_as_their_events(
    database: Database, clock: ManualClock, retention: WebhookRetention
) -> None:
    row = await add_webhook(database, webhook("w"))
    for _ in range(4):
        await append(database)
    for _ in range(3):
        await settle(database, await due(database, "w", clock.now_ns()), DEAD, attempt_ns=0, error="x")
    clock.advance(100 * 3600)
    await retention.tick()
    assert len(await stored(database, "w")) == 4
    third = (await stored(database, "w"))[2]
    await database.write(lambda uow: events.compact(uow, APP, 3, 100))
    # What was queued again waits, and is no dead letter.
    await database.write(lambda uow: deliveries.resend(uow, row, [third.delivery_id]))
    await retention.tick()
    assert [(row.sequence, row.state) for row in await stored(database, "w")] == [(3, PENDING), (4, PENDING)]
    [first] = await due(database, "w", clock.now_ns())
    assert first.payload


async def test_what_waits_for_a_disabled_webhook_goes_with_its_events(
    database: Database, clock: ManualClock, retention: WebhookRetention
) -> None:
    await add_tasks(database, ["1"])
    row = await add_webhook(database, webhook("w", enabled=False))
    await append(database, task_id="1")
    await append(database)
    await append(database)
    await database.write(lambda uow: events.compact(uow, APP, 2, 100))
    await retention.tick()
    assert [each.sequence for each in await stored(database, "w")] == [3]
    assert await lanes(database) == [("w", "", None)]
    enabled = replace(row, is_enabled=True)
    await database.write(lambda uow: webhook_rows.change(uow, enabled, was_enabled=False))
    await database.write(lambda uow: events.compact(uow, APP, 3, 100))
    await retention.tick()
    # What is being sent is not taken away, however old.
    assert [each.sequence for each in await due(database, "w", clock.now_ns())] == [3]


async def test_deleted_webhooks_go_with_everything(
    database: Database, clock: ManualClock, retention: WebhookRetention
) -> None:
    row = await add_webhook(database, webhook("w"))
    await add_webhook(database, webhook("other"))
    key = KeyRow("w", 1, "key", "sealed", clock.now_ns())
    await database.write(lambda uow: webhook_rows.add_first_key(uow, key))

    async def many(uow: UnitOfWork) -> None:
        for _ in range(1201):
            await uow.append(warning("x"))

    await database.write(many)
    assert await rows(database) == [2, 1, 2402, 2]
    await database.write(lambda uow: webhook_rows.mark_deleted(uow, row))
    assert (await rows(database))[:2] == [2, 0]
    await retention.tick()
    assert await rows(database) == [1, 0, 1201, 1]
    assert [each[0] for each in await lanes(database)] == ["other"]


async def test_keys_go_when_they_have_ended(
    database: Database, clock: ManualClock, retention: WebhookRetention
) -> None:
    row = await add_webhook(database, webhook("w"))
    first, second = (KeyRow("w", number, str(number), "sealed", 0) for number in (1, 2))
    await database.write(lambda uow: webhook_rows.add_first_key(uow, first))
    end_ns = clock.now_ns() + 60 * NANOSECONDS
    await database.write(lambda uow: webhook_rows.add_key(uow, row, second, others_end_ns=end_ns))
    await retention.tick()
    assert (await rows(database))[1] == 2
    clock.advance(60)
    await retention.tick()
    assert (await rows(database))[1] == 1


async def test_it_runs_until_it_is_closed(database: Database, clock: ManualClock) -> None:
    row = await add_webhook(database, webhook("w"))
    await database.write(lambda uow: webhook_rows.mark_deleted(uow, row))
    retention = WebhookRetention(database, clock, keep_seconds=0, keep_delivered=0, interval_seconds=0.01)
    running = asyncio.create_task(retention.run())
    async with asyncio.timeout(10):
        while (await rows(database))[0]:
            pass
    await retention.aclose()
    await retention.aclose()
    await running
