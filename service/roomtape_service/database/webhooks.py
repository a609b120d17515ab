"""Webhooks and their keys as they are stored.

Each change of a webhook gives its application another `webhooks_version` in the same unit, by which every process sees
that what it remembers is old.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, webhook_pb2
from roomtape_service.database.tables import applications, webhook_keys, webhook_lanes, webhooks
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal

__all__ = [
    "KeyRow",
    "WebhookRow",
    "add",
    "add_first_key",
    "add_key",
    "change",
    "count",
    "find",
    "get",
    "keys_of",
    "mark_deleted",
    "page",
    "webhook_not_found",
]

_VERSION_BITS = 62


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A row of `webhooks`; `filter` is a serialized EventFilter, `revision` makes the etag."""

    webhook_id: str
    app_id: str
    display_name: str
    url: str
    format: webhook_pb2.WebhookFormat.ValueType
    vendor_app_id: str
    filter: bytes
    retry: webhook_pb2.WebhookRetry.ValueType
    concurrency: int
    is_enabled: bool
    has_string_room_ids: bool = False
    create_ns: int = 0
    update_ns: int = 0
    revision: int = 0
    last_success_ns: int | None = None
    last_failure_ns: int | None = None
    last_error: str = ""

    @property
    def event_filter(self) -> event_pb2.EventFilter:
        """Which events it wants."""
        return event_pb2.EventFilter.FromString(self.filter)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A row of `webhook_keys`; `value` is encrypted. `expire_ns` is None in the newest key."""

    webhook_id: str
    number: int
    key_id: str
    value: str
    create_ns: int
    expire_ns: int | None = None


_COLUMNS = tuple(webhooks.c[each.name] for each in fields(WebhookRow))
_KEY_COLUMNS = tuple(webhook_keys.c[each.name] for each in fields(KeyRow))
# What a caller may change.
_CHANGED = (
    "display_name",
    "url",
    "vendor_app_id",
    "filter",
    "retry",
    "concurrency",
    "is_enabled",
    "has_string_room_ids",
)


async def find(connection: AsyncConnection, webhook_id: str) -> WebhookRow | None:
    """The webhook, whosesoever it is, or None if there is none or it is deleted."""
    row = (await connection.execute(_live().where(webhooks.c.webhook_id == webhook_id))).first()
    return None if row is None else _webhook(row)


async def get(connection: AsyncConnection, app_id: str, webhook_id: str) -> WebhookRow:
    """The application's webhook. Raises Refusal WEBHOOK_NOT_FOUND."""
    row = await find(connection, webhook_id)
    if row is None or row.app_id != app_id:
        raise webhook_not_found(app_id, webhook_id)
    return row


async def page(
    connection: AsyncConnection, app_id: str, after: tuple[int, str] | None, limit: int
) -> Sequence[WebhookRow]:
    """Up to `limit` of the application's webhooks, oldest first, from the first after (create_ns, webhook_id)."""
    query = _live().where(webhooks.c.app_id == app_id)
    if after is not None:
        query = query.where(sa.tuple_(webhooks.c.create_ns, webhooks.c.webhook_id) > after)
    query = query.order_by(webhooks.c.create_ns, webhooks.c.webhook_id).limit(limit)
    return [_webhook(row) for row in await connection.execute(query)]


async def count(connection: AsyncConnection, app_id: str) -> int:
    """How many webhooks the application has."""
    query = sa.select(sa.func.count()).select_from(webhooks)
    query = query.where(webhooks.c.app_id == app_id, webhooks.c.delete_ns.is_(None))
    return int(await connection.scalar(query) or 0)


async def keys_of(
    connection: AsyncConnection, webhook_ids: Collection[str], now_ns: int
) -> Mapping[str, Sequence[KeyRow]]:
    """The keys of webhooks that have not ended, newest first."""
    query = (
        sa.select(*_KEY_COLUMNS)
        .where(
            webhook_keys.c.webhook_id.in_(webhook_ids),
            sa.or_(webhook_keys.c.expire_ns.is_(None), webhook_keys.c.expire_ns > now_ns),
        )
        .order_by(webhook_keys.c.webhook_id, webhook_keys.c.number.desc())
    )
    found: dict[str, list[KeyRow]] = {webhook_id: [] for webhook_id in webhook_ids}
    for row in await connection.execute(query):
        found[row.webhook_id].append(KeyRow(*row))
    return found


async def add(uow: UnitOfWork, row: WebhookRow) -> WebhookRow:
    """Stores a new webhook, and returns it with its times and revision."""
    row = replace(row, create_ns=uow.now_ns, update_ns=uow.now_ns, revision=1)
    await uow.connection.execute(
        sa.insert(webhooks).values({each.name: getattr(row, each.name) for each in fields(WebhookRow)})
    )
    await _changed(uow, row.app_id)
    return row


async def change(uow: UnitOfWork, row: WebhookRow, *, was_enabled: bool) -> WebhookRow:
    """Stores what a caller may change, and returns the row with its new `update_ns` and revision.

    Call it under the application's lock with the row that was read there. What is queued waits while the webhook is
    disabled, and is due when it is enabled again.
    """
    row = replace(row, update_ns=uow.now_ns, revision=row.revision + 1)
    await uow.connection.execute(
        sa.update(webhooks)
        .where(webhooks.c.webhook_id == row.webhook_id)
        .values(
            update_ns=row.update_ns,
            revision=row.revision,
            **{name: getattr(row, name) for name in _CHANGED},
        )
    )
    if row.is_enabled != was_enabled:
        await uow.connection.execute(
            sa.update(webhook_lanes)
            .where(webhook_lanes.c.webhook_id == row.webhook_id)
            .values(next_ns=uow.now_ns if row.is_enabled else None)
        )
    uow.wake(row.webhook_id)
    await _changed(uow, row.app_id)
    return row


async def add_first_key(uow: UnitOfWork, key: KeyRow) -> None:
    """Stores the key of a new webhook."""
    await uow.connection.execute(
        sa.insert(webhook_keys).values({each.name: getattr(key, each.name) for each in fields(KeyRow)})
    )


async def add_key(uow: UnitOfWork, row: WebhookRow, key: KeyRow, *, others_end_ns: int) -> WebhookRow:
    """Stores a new newest key, and has the ones before end at `others_end_ns`, or when they would have before.

    Keys that have ended go. Returns the webhook with its new revision.
    """
    of_webhook = webhook_keys.c.webhook_id == row.webhook_id
    await uow.connection.execute(
        sa.update(webhook_keys)
        .where(
            of_webhook, sa.or_(webhook_keys.c.expire_ns.is_(None), webhook_keys.c.expire_ns > others_end_ns)
        )
        .values(expire_ns=others_end_ns)
    )
    await uow.connection.execute(
        sa.delete(webhook_keys).where(of_webhook, webhook_keys.c.expire_ns <= uow.now_ns)
    )
    await add_first_key(uow, key)
    return await change(uow, row, was_enabled=row.is_enabled)


async def mark_deleted(uow: UnitOfWork, row: WebhookRow) -> None:
    """From now on nobody finds the webhook, nothing more is queued for it, and nothing of it is due.

    Its keys go at once; the rows of what was queued are left for the retention.
    """
    await uow.connection.execute(
        sa.update(webhooks).where(webhooks.c.webhook_id == row.webhook_id).values(delete_ns=uow.now_ns)
    )
    await uow.connection.execute(sa.delete(webhook_keys).where(webhook_keys.c.webhook_id == row.webhook_id))
    uow.wake(row.webhook_id)
    await _changed(uow, row.app_id)


def webhook_not_found(app_id: str, webhook_id: str) -> Refusal:
    """The refusal for a webhook that the application does not have."""
    return Refusal(
        error_pb2.ERROR_REASON_WEBHOOK_NOT_FOUND,
        f"The application {app_id!r} has no webhook {webhook_id!r}.",
        metadata={"appId": app_id, "webhookId": webhook_id},
    )


async def _changed(uow: UnitOfWork, app_id: str) -> None:
    # Never a number that was there before, not even in a unit that was rolled back.
    version = secrets.randbits(_VERSION_BITS) + 1 if await count(uow.connection, app_id) else 0
    await uow.connection.execute(
        sa.update(applications).where(applications.c.app_id == app_id).values(webhooks_version=version)
    )


def _live() -> "sa.Select[tuple[object, ...]]":
    return sa.select(*_COLUMNS).where(webhooks.c.delete_ns.is_(None))


def _webhook(row: "sa.Row[tuple[object, ...]]") -> WebhookRow:
    values = dict(row._mapping)
    values["filter"] = bytes(row.filter)
    return WebhookRow(**values)
