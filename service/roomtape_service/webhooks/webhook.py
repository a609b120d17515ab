"""A webhook as deliveries need it, and what they need to know beside their event."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.segments import segment_message, segments_of_task
from roomtape_service.database.tasks import find_task
from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.storage.secrets import SecretBox, SecretKeyError
from roomtape_service.tasks.task import task_proto
from roomtape_service.webhooks.formats.format import Format, Need, SigningKey, TaskFacts
from roomtape_service.webhooks.formats.table import format_of
from roomtape_service.webhooks.keys import key_binding
from roomtape_service.webhooks.schedule import Schedule, schedule_of

__all__ = ["Webhook", "read_facts", "read_webhook"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """An enabled webhook as it stood when it was read."""

    row: WebhookRow
    format: Format
    schedule: Schedule
    keys: Sequence[tuple[SigningKey, int | None]] = field(repr=False)
    """Newest first, each with when it ends. None that has ended, and none that can't be read."""

    def keys_at(self, now_ns: int) -> Sequence[SigningKey]:
        """Those that have not ended."""
        return [key for key, expire_ns in self.keys if expire_ns is None or expire_ns > now_ns]


async def read_webhook(
    connection: AsyncConnection,
    webhook_id: str,
    secret_box: SecretBox,
    now_ns: int,
    *,
    known: Webhook | None = None,
) -> Webhook | None:
    """The webhook, or None when nothing is to be sent to it: it is gone, or disabled.

    `known` is as it was read before, and is returned when nothing changed.
    """
    row = await webhook_rows.find(connection, webhook_id)
    if row is None or not row.is_enabled:
        return None
    if known is not None and known.row.revision == row.revision:
        return known
    keys = await webhook_rows.keys_of(connection, [webhook_id], now_ns)
    return Webhook(
        row,
        format_of(row.format),
        schedule_of(row.retry, row.format),
        _opened(secret_box, row.app_id, keys[webhook_id]),
    )


async def read_facts(connection: AsyncConnection, event: event_pb2.Event, need: Need) -> TaskFacts | None:
    """What a format needs to know of the event's task; None for events of no task."""
    row = await find_task(connection, event.app_id, event.task_id) if event.task_id else None
    if row is None:
        return None
    segments = await segments_of_task(connection, row.task_id) if need is Need.SEGMENTS else ()
    return TaskFacts(task_proto(row), [segment_message(each) for each in segments])


def _opened(
    secret_box: SecretBox, app_id: str, keys: Sequence[KeyRow]
) -> Sequence[tuple[SigningKey, int | None]]:
    opened = []
    for key in keys:
        binding = key_binding(key.webhook_id, key.key_id)
        # Keys of before the secret key was lost are of no use; one that was set since is.
        with suppress(SecretKeyError):
            opened.append((SigningKey(secret_box.open_text(app_id, binding, key.value)), key.expire_ns))
    return opened
