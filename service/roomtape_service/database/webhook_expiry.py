"""What need not be kept of webhooks: deliveries that were made, dead letters of old events, all of deleted webhooks."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import (
    applications,
    webhook_deliveries,
    webhook_keys,
    webhook_lanes,
    webhooks,
)
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = [
    "Kept",
    "have_ended",
    "kept",
    "remove_dead",
    "remove_deleted",
    "remove_delivered",
    "remove_disabled",
    "remove_ended",
]

_deliveries = webhook_deliveries.c
# Written out, because SQLite takes a partial index only for the very condition that it was made with.
_IS_PENDING = sa.text("webhook_deliveries.state = 1")
_IS_DELIVERED = sa.text("webhook_deliveries.state = 2")
_IS_DEAD = sa.text("webhook_deliveries.state = 3")


@dataclass(frozen=True, slots=True)
class Kept:
    """A webhook of which there is something to be removed.

    `dead_sequence` and `disabled_sequence` are the newest delivery that need not be kept, `delivered_ns` is when the
    newest of them was made; 0 where there is none.
    """

    app_id: str
    webhook_id: str
    is_deleted: bool
    delivered_ns: int
    dead_sequence: int
    disabled_sequence: int


async def kept(
    connection: AsyncConnection, *, delivered_before_ns: int, keep_delivered: int
) -> Sequence[Kept]:
    """For a scan: all webhooks that have something to be removed."""
    query = sa.select(
        webhooks.c.app_id,
        webhooks.c.webhook_id,
        webhooks.c.is_enabled,
        webhooks.c.delete_ns,
        applications.c.compacted_sequence,
    ).join_from(webhooks, applications, applications.c.app_id == webhooks.c.app_id)
    found = []
    for row in (await connection.execute(query)).all():
        of_webhook = _deliveries.webhook_id == row.webhook_id
        old = _deliveries.sequence <= row.compacted_sequence
        too_old = await connection.scalar(
            sa.select(sa.func.max(_deliveries.end_ns)).where(
                of_webhook, _IS_DELIVERED, _deliveries.end_ns < delivered_before_ns
            )
        )
        too_many = await connection.scalar(
            sa.select(_deliveries.end_ns)
            .where(of_webhook, _IS_DELIVERED)
            .order_by(_deliveries.end_ns.desc())
            .offset(keep_delivered)
            .limit(1)
        )
        dead = await connection.scalar(
            sa.select(sa.func.max(_deliveries.sequence)).where(of_webhook, old, _IS_DEAD)
        )
        waiting = None
        if not row.is_enabled:
            waiting = await connection.scalar(
                sa.select(sa.func.max(_deliveries.sequence)).where(of_webhook, old, _IS_PENDING)
            )
        each = Kept(
            row.app_id,
            row.webhook_id,
            is_deleted=row.delete_ns is not None,
            delivered_ns=max(too_old or 0, too_many or 0),
            dead_sequence=dead or 0,
            disabled_sequence=waiting or 0,
        )
        if each.is_deleted or each.delivered_ns or each.dead_sequence or each.disabled_sequence:
            found.append(each)
    return found


async def remove_delivered(uow: UnitOfWork, each: Kept, limit: int) -> int:
    """Removes up to `limit` of the deliveries that were made and need not be listed any more; how many."""
    return await _remove(uow, each, limit, _IS_DELIVERED, _deliveries.end_ns <= each.delivered_ns)


async def remove_dead(uow: UnitOfWork, each: Kept, limit: int) -> int:
    """Removes up to `limit` of the dead letters whose event is not in the log any more; how many."""
    return await _remove(uow, each, limit, _IS_DEAD, _deliveries.sequence <= each.dead_sequence)


async def remove_disabled(uow: UnitOfWork, each: Kept, limit: int) -> int:
    """Removes up to `limit` of what waits for a disabled webhook and is not in the log any more; how many."""
    await uow.lock_application(each.app_id)
    # Whoever enables it is promised what is there.
    still_disabled = await uow.connection.scalar(
        sa.select(webhooks.c.webhook_id).where(
            webhooks.c.webhook_id == each.webhook_id, webhooks.c.is_enabled.is_(False)
        )
    )
    if still_disabled is None:
        return 0
    removed = await _remove(uow, each, limit, _IS_PENDING, _deliveries.sequence <= each.disabled_sequence)
    await uow.connection.execute(
        sa.delete(webhook_lanes).where(
            webhook_lanes.c.webhook_id == each.webhook_id,
            ~sa.exists().where(
                _deliveries.webhook_id == webhook_lanes.c.webhook_id,
                _deliveries.task_id == webhook_lanes.c.task_id,
                _IS_PENDING,
            ),
        )
    )
    return removed


async def remove_deleted(uow: UnitOfWork, each: Kept, limit: int) -> int:
    """Removes up to `limit` rows of a deleted webhook, in the end its own; how many."""
    removed = await _remove(uow, each, limit)
    if removed:
        return removed
    for table in (webhook_lanes, webhook_keys):
        await uow.connection.execute(sa.delete(table).where(table.c.webhook_id == each.webhook_id))
    gone = await uow.connection.execute(
        sa.delete(webhooks).where(webhooks.c.webhook_id == each.webhook_id, webhooks.c.delete_ns.is_not(None))
    )
    return gone.rowcount


async def have_ended(connection: AsyncConnection, now_ns: int) -> bool:
    """For a scan: whether there are keys that have ended."""
    return bool(await connection.scalar(sa.select(sa.exists().where(webhook_keys.c.expire_ns <= now_ns))))


async def remove_ended(uow: UnitOfWork) -> None:
    """Removes all keys that have ended."""
    await uow.connection.execute(sa.delete(webhook_keys).where(webhook_keys.c.expire_ns <= uow.now_ns))


async def _remove(
    uow: UnitOfWork, each: Kept, limit: int, *conditions: sa.ColumnElement[bool] | sa.TextClause
) -> int:
    # Nobody queues one of them again in between.
    await uow.lock_application(each.app_id)
    some = sa.select(_deliveries.sequence).where(_deliveries.webhook_id == each.webhook_id, *conditions)
    removed = await uow.connection.execute(
        sa.delete(webhook_deliveries).where(
            _deliveries.webhook_id == each.webhook_id, _deliveries.sequence.in_(some.limit(limit))
        )
    )
    return removed.rowcount
