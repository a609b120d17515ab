"""Webhooks as rows, for tests of what is queued for them."""

from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.database import Database, deliveries, outbox
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.deliveries import DeliveryRow
from roomtape_service.database.outbox import Due, Outcome
from roomtape_service.database.tables import webhook_lanes
from roomtape_service.database.webhooks import WebhookRow
from tests.support.databases import APP, warning

__all__ = ["STATES", "add_webhook", "append", "due", "lanes", "settle", "stored", "webhook"]

STATES = (
    webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING,
    webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED,
    webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD,
)
_ALL = 10_000


def webhook(
    webhook_id: str,
    *,
    app_id: str = APP,
    wanted: event_pb2.EventFilter | None = None,
    kind: webhook_pb2.WebhookFormat.ValueType = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE,
    enabled: bool = True,
) -> WebhookRow:
    """A row that is not stored."""
    return WebhookRow(
        webhook_id=webhook_id,
        app_id=app_id,
        display_name="",
        url="https://hooks.example.com",
        format=kind,
        vendor_app_id="",
        filter=(wanted or event_pb2.EventFilter()).SerializeToString(),
        retry=webhook_pb2.WEBHOOK_RETRY_ROOMTAPE,
        concurrency=8,
        is_enabled=enabled,
    )


async def add_webhook(database: Database, row: WebhookRow) -> WebhookRow:
    """Stores it; it has no key."""
    return await database.write(lambda uow: webhook_rows.add(uow, row))


async def append(database: Database, text: str = "", task_id: str = "", app_id: str = APP) -> event_pb2.Event:
    """Appends a warning."""
    return await database.write(lambda uow: uow.append(warning(text, app_id=app_id, task_id=task_id)))


async def due(
    database: Database, webhook_id: str, now_ns: int, *, limit: int = _ALL, busy: Sequence[str] = ()
) -> Sequence[Due]:
    """What is due."""
    return await database.read(
        lambda connection: outbox.due(connection, webhook_id, now_ns, limit, busy=busy)
    )


async def settle(
    database: Database,
    found: Sequence[Due],
    state: webhook_pb2.WebhookDeliveryState.ValueType,
    *,
    attempt_ns: int,
    next_ns: int = 0,
    error: str = "",
) -> None:
    """The same came of all attempts."""
    outcomes = [
        Outcome(each, state, attempt_ns, error=error, next_ns=next_ns, status=500 if error else 200)
        for each in found
    ]
    await database.write(lambda uow: outbox.settle(uow, outcomes), name="test")


async def stored(database: Database, webhook_id: str) -> Sequence[DeliveryRow]:
    """All deliveries of a webhook, in the order of their events."""
    return await database.scan(partial(deliveries.page, webhook_id=webhook_id, states=STATES, limit=_ALL))


async def lanes(database: Database) -> Sequence[tuple[str, str, int | None]]:
    """Webhook, task and time of each lane."""

    async def read(connection: AsyncConnection) -> Sequence[tuple[str, str, int | None]]:
        query = sa.select(webhook_lanes.c.webhook_id, webhook_lanes.c.task_id, webhook_lanes.c.next_ns)
        rows = await connection.execute(query.order_by(webhook_lanes.c.webhook_id, webhook_lanes.c.task_id))
        return [(row[0], row[1], row[2]) for row in rows]

    return await database.read(read)
