"""What was sent to webhooks, what waits and what was given up: for its owner to see, and to send again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, webhook_pb2
from roomtape_service.database.tables import webhook_deliveries, webhook_lanes
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.database.webhooks import WebhookRow
from roomtape_service.errors import Refusal

__all__ = ["DeliveryRow", "Resent", "Standing", "page", "resend", "resend_dead", "standings"]

_PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
_DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD

_deliveries = webhook_deliveries.c
# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_PENDING = sa.text("webhook_deliveries.state = 1")
_IS_DEAD = sa.text("webhook_deliveries.state = 3")


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A row of `webhook_deliveries` without its event; times in UTC nanoseconds.

    `next_ns` is None unless it is the next of its lane, and the lane has a time.
    """

    webhook_id: str
    sequence: int
    delivery_id: str
    task_id: str
    type: int
    event_ns: int
    state: int
    attempts: int
    last_attempt_ns: int | None
    last_status: int
    last_error: str
    next_ns: int | None


@dataclass(frozen=True, slots=True)
class Resent:
    """How many deliveries were queued again, and how many of them had been given up."""

    count: int
    dead: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How many deliveries of a webhook wait and were given up, and when the first event that waits happened."""

    pending: int = 0
    dead: int = 0
    oldest_pending_ns: int | None = None


_COLUMNS = tuple(_deliveries[each.name] for each in fields(DeliveryRow) if each.name != "next_ns")


async def page(
    connection: AsyncConnection,
    webhook_id: str,
    states: Collection[int],
    *,
    task_id: str = "",
    after: int = 0,
    limit: int,
) -> Sequence[DeliveryRow]:
    """For a scan: up to `limit` deliveries in these states whose event follows the sequence `after`, by sequence.

    Only of one task, if `task_id` is not empty.
    """
    first = (
        sa.select(sa.func.min(_deliveries.sequence))
        .where(
            _deliveries.webhook_id == webhook_lanes.c.webhook_id,
            _deliveries.task_id == webhook_lanes.c.task_id,
            _IS_PENDING,
        )
        .correlate(webhook_lanes)
        .scalar_subquery()
    )
    of_lane = sa.and_(
        webhook_lanes.c.webhook_id == _deliveries.webhook_id,
        webhook_lanes.c.task_id == _deliveries.task_id,
        _deliveries.state == _PENDING,
    )
    found = (
        sa.select(*_COLUMNS)
        .where(
            _deliveries.webhook_id == webhook_id,
            _deliveries.sequence > after,
            _IS_DEAD if set(states) == {_DEAD} else _deliveries.state.in_(sorted(states)),
            *([_deliveries.task_id == task_id] if task_id else []),
        )
        .order_by(_deliveries.sequence)
        .limit(limit)
    )
    rows = (await connection.execute(found)).all()
    sequences = [row.sequence for row in rows if row.state == _PENDING]
    next_of: dict[int, int | None] = {}
    if sequences:
        lanes = (
            sa.select(_deliveries.sequence, webhook_lanes.c.next_ns)
            .join_from(webhook_deliveries, webhook_lanes, of_lane)
            .where(
                _deliveries.webhook_id == webhook_id,
                _deliveries.sequence.in_(sequences),
                _deliveries.sequence == first,
            )
        )
        next_of = {row.sequence: row.next_ns for row in await connection.execute(lanes)}
    return [DeliveryRow(**row._mapping, next_ns=next_of.get(row.sequence)) for row in rows]


async def standings(connection: AsyncConnection, webhook_ids: Collection[str]) -> Mapping[str, Standing]:
    """For a scan: where each of the webhooks stands."""
    of_them = _deliveries.webhook_id.in_(webhook_ids)
    dead = sa.select(_deliveries.webhook_id, sa.func.count()).where(of_them, _IS_DEAD)
    dead_of = {row[0]: row[1] for row in await connection.execute(dead.group_by(_deliveries.webhook_id))}
    waiting = (
        sa.select(_deliveries.webhook_id, sa.func.count(), sa.func.min(_deliveries.sequence))
        .where(of_them, _IS_PENDING)
        .group_by(_deliveries.webhook_id)
    )
    found = {webhook_id: Standing(dead=dead_of.get(webhook_id, 0)) for webhook_id in webhook_ids}
    for webhook_id, pending, sequence in (await connection.execute(waiting)).all():
        oldest = sa.select(_deliveries.event_ns).where(
            _deliveries.webhook_id == webhook_id, _deliveries.sequence == sequence
        )
        found[webhook_id] = Standing(pending, found[webhook_id].dead, await connection.scalar(oldest))
    return found


async def resend(uow: UnitOfWork, webhook: WebhookRow, delivery_ids: Sequence[str]) -> Resent:
    """Queues deliveries again as if they were new. What waits is due at once.

    Call it under the application's lock. Raises Refusal DELIVERY_NOT_FOUND for the first that is not there.
    """
    wanted = {_sequence(delivery_id): delivery_id for delivery_id in delivery_ids}
    rows = await uow.connection.execute(
        sa.select(_deliveries.sequence, _deliveries.delivery_id, _deliveries.state).where(
            _deliveries.webhook_id == webhook.webhook_id, _deliveries.sequence.in_(wanted)
        )
    )
    there = {row.delivery_id: row for row in rows}
    for delivery_id in delivery_ids:
        if delivery_id not in there:
            raise Refusal(
                error_pb2.ERROR_REASON_DELIVERY_NOT_FOUND,
                f"The webhook {webhook.webhook_id!r} has no delivery {delivery_id!r}, or has it no more.",
                metadata={"webhookId": webhook.webhook_id, "deliveryId": delivery_id},
            )
    found = [there[delivery_id] for delivery_id in set(delivery_ids)]
    await _queue_again(uow, webhook, [row.sequence for row in found])
    return Resent(len(found), sum(row.state == _DEAD for row in found))


async def resend_dead(uow: UnitOfWork, webhook: WebhookRow, limit: int) -> Resent:
    """Queues up to `limit` of the deliveries that were given up again, oldest first.

    Call it under the application's lock.
    """
    query = sa.select(_deliveries.sequence).where(_deliveries.webhook_id == webhook.webhook_id, _IS_DEAD)
    sequences = (await uow.connection.scalars(query.order_by(_deliveries.sequence).limit(limit))).all()
    await _queue_again(uow, webhook, sequences)
    return Resent(len(sequences), len(sequences))


async def _queue_again(uow: UnitOfWork, webhook: WebhookRow, sequences: Sequence[int]) -> None:
    if not sequences:
        return
    rows = await uow.connection.execute(
        sa.update(webhook_deliveries)
        .where(_deliveries.webhook_id == webhook.webhook_id, _deliveries.sequence.in_(sequences))
        .values(state=_PENDING, queue_ns=uow.now_ns, attempts=0, requests_taken=0, end_ns=None)
        .returning(_deliveries.task_id)
    )
    next_ns = uow.now_ns if webhook.is_enabled else None
    lanes = [
        {"webhook_id": webhook.webhook_id, "task_id": task_id, "next_ns": next_ns}
        for task_id in sorted({row.task_id for row in rows})
    ]
    insert = postgresql.insert if uow.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(webhook_lanes)
    statement = statement.on_conflict_do_update(
        index_elements=["webhook_id", "task_id"], set_={"next_ns": statement.excluded.next_ns}
    )
    await uow.connection.execute(statement, lanes)
    uow.wake(webhook.webhook_id)


def _sequence(delivery_id: str) -> int:
    """The event's, by which a delivery is found; 0 for what is no id."""
    digits = delivery_id.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 0
