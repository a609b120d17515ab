"""Webhooks and their deliveries as tables."""

from collections.abc import Iterable

from rich.table import Table

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.cli.enums import label
from roomtape_service.cli.output import new_table
from roomtape_service.cli.texts import show_time

__all__ = ["delivery_table", "webhook_table"]


def webhook_table(webhooks: Iterable[webhook_pb2.Webhook]) -> Table:
    """One row a webhook."""
    columns = ("webhook", "name", "url", "format", "events", "keys", "waiting", "dead", "last taken", "etag")
    table = new_table(*columns, right=("keys", "waiting", "dead"))
    for webhook in webhooks:
        table.add_row(
            webhook.webhook_id,
            webhook.display_name,
            webhook.url,
            label(webhook_pb2.WebhookFormat.DESCRIPTOR, webhook.format),
            _wanted(webhook.filter) if webhook.enabled else "disabled",
            str(len(webhook.keys)),
            str(webhook.status.pending_count),
            str(webhook.status.dead_count),
            show_time(webhook.status.last_success_time),
            webhook.etag,
        )
    return table


def delivery_table(deliveries: Iterable[webhook_pb2.WebhookDelivery]) -> Table:
    """One row a delivery."""
    columns = ("delivery", "task", "event", "happened", "state", "attempts", "last", "next", "error")
    table = new_table(*columns, right=("attempts",))
    for delivery in deliveries:
        table.add_row(
            delivery.delivery_id,
            delivery.task_id,
            label(event_pb2.EventType.DESCRIPTOR, delivery.type),
            show_time(delivery.event_time),
            label(webhook_pb2.WebhookDeliveryState.DESCRIPTOR, delivery.state),
            str(delivery.attempts),
            show_time(delivery.last_attempt_time),
            show_time(delivery.next_attempt_time),
            delivery.last_error,
        )
    return table


def _wanted(wanted: event_pb2.EventFilter) -> str:
    parts = [label(event_pb2.EventType.DESCRIPTOR, each) for each in wanted.types]
    parts += [f"room {each}" for each in wanted.room_ids]
    parts += [f"task {each}" for each in wanted.task_ids]
    parts += [f"{key}={value}" for key, value in sorted(wanted.labels.items())]
    return ", ".join(parts) or "all"
