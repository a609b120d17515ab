"""Deliveries to webhooks: which is sent next, and what came of it.

1. A webhook's deliveries of one task, and those of no task, wait in a lane of their own, in the order of `sequence`. Of
   each lane only the first is ever due, from the time that the lane says.
2. A lane has a row while something waits in it. The row is made with the delivery and goes with the last of them, both
   under the application's lock, so that no delivery is left without one.
3. Lanes of a disabled webhook have no time, and are due again when it is enabled.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.database.tables import webhook_deliveries, webhook_lanes, webhooks
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["Due", "Outcome", "Receiver", "due", "following", "hasten", "next_ns", "receivers", "settle"]

_PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
_ERROR_CHARACTERS = 512

_deliveries = webhook_deliveries.c
# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_PENDING = sa.text("webhook_deliveries.state = 1")
_HAS_TIME = sa.text("webhook_lanes.next_ns IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Receiver:
    """An enabled webhook for which something is queued; its first delivery is due at `due_ns`.

    `revision` changes with every change of the webhook and its keys.
    """

    webhook_id: str
    app_id: str
    revision: int
    due_ns: int


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is next in its lane; the lane is `task_id`.

    `attempts` failed since `queue_ns`, when it was queued or queued again; the receiver took the first
    `requests_taken` of its requests. `payload` is the serialized Event.
    """

    app_id: str
    webhook_id: str
    delivery_id: str
    sequence: int
    task_id: str
    type: event_pb2.EventType.ValueType
    attempts: int
    requests_taken: int
    event_ns: int
    queue_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt at `attempt_ns` came to.

    `state` is PENDING when it is to be tried again at `next_ns`. `status` is the receiver's HTTP status, 0 when it did
    not answer; `error` is empty when it took the delivery.
    """

    delivery: Due
    state: webhook_pb2.WebhookDeliveryState.ValueType
    attempt_ns: int
    status: int = 0
    error: str = ""
    requests_taken: int = 0
    next_ns: int = 0


_DUE_COLUMNS = (
    _deliveries.webhook_id,
    _deliveries.delivery_id,
    _deliveries.sequence,
    _deliveries.task_id,
    _deliveries.type,
    _deliveries.attempts,
    _deliveries.requests_taken,
    _deliveries.event_ns,
    _deliveries.queue_ns,
    _deliveries.payload,
)


async def receivers(connection: AsyncConnection) -> Sequence[Receiver]:
    """All enabled webhooks for which something is queued, whoever is due first first."""
    first = (
        sa.select(sa.func.min(webhook_lanes.c.next_ns))
        .where(webhook_lanes.c.webhook_id == webhooks.c.webhook_id, _HAS_TIME)
        .scalar_subquery()
    )
    all_of_them = (
        sa.select(webhooks.c.webhook_id, webhooks.c.app_id, webhooks.c.revision, first.label("due_ns"))
        .where(webhooks.c.is_enabled, webhooks.c.delete_ns.is_(None))
        .subquery()
    )
    query = sa.select(all_of_them).where(all_of_them.c.due_ns.is_not(None)).order_by(all_of_them.c.due_ns)
    return [Receiver(*row) for row in await connection.execute(query)]


async def due(
    connection: AsyncConnection, webhook_id: str, now_ns: int, limit: int, *, busy: Collection[str] = ()
) -> Sequence[Due]:
    """The first deliveries of up to `limit` of the webhook's lanes, longest due first.

    `busy` are lanes to be left out, since what is first in them is on its way. A lane that waits for its next attempt,
    and everything of a disabled webhook, is not due.
    """
    first = (
        sa.select(sa.func.min(_deliveries.sequence))
        .where(
            _deliveries.webhook_id == webhook_lanes.c.webhook_id,
            _deliveries.task_id == webhook_lanes.c.task_id,
            _IS_PENDING,
        )
        .scalar_subquery()
    )
    lanes = sa.select(webhook_lanes.c.next_ns, first.label("sequence")).where(
        webhook_lanes.c.webhook_id == webhook_id, _HAS_TIME, webhook_lanes.c.next_ns <= now_ns
    )
    if busy:
        lanes = lanes.where(webhook_lanes.c.task_id.not_in(busy))
    found = lanes.order_by(webhook_lanes.c.next_ns).limit(limit).subquery()
    query = (
        sa.select(webhooks.c.app_id, *_DUE_COLUMNS)
        .join_from(webhook_deliveries, found, found.c.sequence == _deliveries.sequence)
        .join(webhooks, webhooks.c.webhook_id == _deliveries.webhook_id)
        .where(_deliveries.webhook_id == webhook_id, webhooks.c.delete_ns.is_(None))
        .order_by(found.c.next_ns, _deliveries.sequence)
    )
    return _due(await connection.execute(query))


async def next_ns(connection: AsyncConnection, webhook_id: str, now_ns: int) -> int | None:
    """When the first of the webhook's lanes is due that is not due at `now_ns`; None if all are, or none waits."""
    query = sa.select(sa.func.min(webhook_lanes.c.next_ns))
    query = query.where(webhook_lanes.c.webhook_id == webhook_id, _HAS_TIME, webhook_lanes.c.next_ns > now_ns)
    first: int | None = await connection.scalar(query)
    return first


async def following(
    connection: AsyncConnection, webhook_id: str, task_id: str, sequence: int, limit: int
) -> Sequence[Due]:
    """Up to `limit` deliveries of a lane after `sequence`, in their order: what may follow what is on its way."""
    query = (
        sa.select(webhooks.c.app_id, *_DUE_COLUMNS)
        .join_from(webhook_deliveries, webhooks, webhooks.c.webhook_id == _deliveries.webhook_id)
        .where(
            _deliveries.webhook_id == webhook_id,
            _deliveries.task_id == task_id,
            _deliveries.sequence > sequence,
            _IS_PENDING,
            webhooks.c.is_enabled,
            webhooks.c.delete_ns.is_(None),
        )
        .order_by(_deliveries.sequence)
        .limit(limit)
    )
    return _due(await connection.execute(query))


async def hasten(uow: UnitOfWork, app_id: str, webhook_id: str) -> None:
    """What waits for its next attempt is due now."""
    await uow.lock_application(app_id)
    await uow.connection.execute(
        sa.update(webhook_lanes)
        .where(webhook_lanes.c.webhook_id == webhook_id, _HAS_TIME, webhook_lanes.c.next_ns > uow.now_ns)
        .values(next_ns=uow.now_ns)
    )


_SETTLE = (
    sa.update(webhook_deliveries)
    .where(
        _deliveries.webhook_id == sa.bindparam("of_webhook_id"),
        _deliveries.sequence == sa.bindparam("of_sequence"),
        # What was queued again in between is sent again, whatever came of this attempt.
        _deliveries.queue_ns == sa.bindparam("of_queue_ns"),
        _IS_PENDING,
    )
    .values(
        state=sa.bindparam("new_state"),
        attempts=_deliveries.attempts + 1,
        requests_taken=sa.bindparam("new_requests_taken"),
        last_attempt_ns=sa.bindparam("new_attempt_ns"),
        last_status=sa.bindparam("new_status"),
        last_error=sa.bindparam("new_error"),
        end_ns=sa.bindparam("new_end_ns"),
    )
)
_SET_LANE = (
    sa.update(webhook_lanes)
    .where(
        webhook_lanes.c.webhook_id == sa.bindparam("of_webhook_id"),
        webhook_lanes.c.task_id == sa.bindparam("of_task_id"),
        _HAS_TIME,
    )
    .values(next_ns=sa.bindparam("new_next_ns"))
)
_END_LANE = sa.delete(webhook_lanes).where(
    webhook_lanes.c.webhook_id == sa.bindparam("of_webhook_id"),
    webhook_lanes.c.task_id == sa.bindparam("of_task_id"),
    ~sa.exists().where(
        _deliveries.webhook_id == webhook_lanes.c.webhook_id,
        _deliveries.task_id == webhook_lanes.c.task_id,
        _IS_PENDING,
    ),
)
_SUCCEEDED = (
    sa.update(webhooks)
    .where(webhooks.c.webhook_id == sa.bindparam("of_webhook_id"))
    .values(last_success_ns=sa.bindparam("new_success_ns"))
)
_FAILED = (
    sa.update(webhooks)
    .where(webhooks.c.webhook_id == sa.bindparam("of_webhook_id"))
    .values(last_failure_ns=sa.bindparam("new_failure_ns"), last_error=sa.bindparam("new_error"))
)


async def settle(uow: UnitOfWork, outcomes: Sequence[Outcome]) -> None:
    """Stores what attempts came to, any number of them in one unit; those of a lane in their order.

    A delivery that is gone, waits no more, or was queued again is passed over. After a failed attempt its lane waits
    until `next_ns`; else the next of the lane is due at once.
    """
    if not outcomes:
        return
    for app_id in sorted({outcome.delivery.app_id for outcome in outcomes}):
        await uow.lock_application(app_id)
    await uow.connection.execute(
        _SETTLE,
        [
            {
                "of_webhook_id": outcome.delivery.webhook_id,
                "of_sequence": outcome.delivery.sequence,
                "of_queue_ns": outcome.delivery.queue_ns,
                "new_state": outcome.state,
                "new_requests_taken": outcome.requests_taken,
                "new_attempt_ns": outcome.attempt_ns,
                "new_status": outcome.status,
                "new_error": outcome.error[:_ERROR_CHARACTERS],
                "new_end_ns": None if outcome.state == _PENDING else uow.now_ns,
            }
            for outcome in outcomes
        ],
    )
    # The last one of each lane, webhook and kind counts.
    lanes = {(outcome.delivery.webhook_id, outcome.delivery.task_id): outcome for outcome in outcomes}
    await uow.connection.execute(
        _SET_LANE,
        [
            {
                "of_webhook_id": webhook_id,
                "of_task_id": task_id,
                "new_next_ns": outcome.next_ns if outcome.state == _PENDING else uow.now_ns,
            }
            for (webhook_id, task_id), outcome in lanes.items()
        ],
    )
    ended = [
        {"of_webhook_id": webhook_id, "of_task_id": task_id}
        for (webhook_id, task_id), outcome in lanes.items()
        if outcome.state != _PENDING
    ]
    if ended:
        await uow.connection.execute(_END_LANE, ended)
    successes = {outcome.delivery.webhook_id: outcome for outcome in outcomes if not outcome.error}
    if successes:
        await uow.connection.execute(
            _SUCCEEDED,
            [
                {"of_webhook_id": webhook_id, "new_success_ns": outcome.attempt_ns}
                for webhook_id, outcome in successes.items()
            ],
        )
    failures = {outcome.delivery.webhook_id: outcome for outcome in outcomes if outcome.error}
    if failures:
        await uow.connection.execute(
            _FAILED,
            [
                {
                    "of_webhook_id": webhook_id,
                    "new_failure_ns": outcome.attempt_ns,
                    "new_error": outcome.error[:_ERROR_CHARACTERS],
                }
                for webhook_id, outcome in failures.items()
            ],
        )


def _due(rows: Iterable[sa.Row[tuple[object, ...]]]) -> Sequence[Due]:
    return [
        Due(
            app_id=row.app_id,
            webhook_id=row.webhook_id,
            delivery_id=row.delivery_id,
            sequence=row.sequence,
            task_id=row.task_id,
            type=event_pb2.EventType.ValueType(row.type),
            attempts=row.attempts,
            requests_taken=row.requests_taken,
            event_ns=row.event_ns,
            queue_ns=row.queue_ns,
            payload=bytes(row.payload),
        )
        for row in rows
    ]
