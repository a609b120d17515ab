"""The tables of webhooks; see `tables`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from roomtape_service.database.schema import metadata, partial_index

__all__ = ["webhook_deliveries", "webhook_keys", "webhook_lanes", "webhooks"]

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", Text, primary_key=True),
    Column("app_id", Text, ForeignKey("applications.app_id"), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("format", Integer, nullable=False),
    Column("vendor_app_id", Text, nullable=False),
    # A serialized EventFilter.
    Column("filter", LargeBinary, nullable=False),
    Column("retry", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("has_string_room_ids", Boolean, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    Column("update_ns", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # A deleted one stays until all of its deliveries are gone.
    Column("delete_ns", BigInteger),
    Column("last_success_ns", BigInteger),
    Column("last_failure_ns", BigInteger),
    Column("last_error", Text, nullable=False, server_default=""),
    Index("ix_webhooks_app", "app_id", "create_ns", "webhook_id"),
)

webhook_keys = Table(
    "webhook_keys",
    metadata,
    Column("webhook_id", Text, ForeignKey("webhooks.webhook_id"), nullable=False),
    # The newest has the highest.
    Column("number", Integer, nullable=False),
    Column("key_id", Text, nullable=False),
    # Encrypted.
    Column("value", Text, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    # Null in the newest.
    Column("expire_ns", BigInteger),
    PrimaryKeyConstraint("webhook_id", "number"),
)

# Events on their way to webhooks, each written with its event.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("webhook_id", Text, ForeignKey("webhooks.webhook_id"), nullable=False),
    # The event's.
    Column("sequence", BigInteger, nullable=False),
    # Begins with the sequence, by which it is found.
    Column("delivery_id", Text, nullable=False),
    # Empty for events of no task.
    Column("task_id", Text, nullable=False),
    Column("type", Integer, nullable=False),
    Column("event_ns", BigInteger, nullable=False),
    Column("state", Integer, nullable=False),
    # When it was queued, or queued again.
    Column("queue_ns", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # How many of its requests the receiver took, where it is told of the event in several.
    Column("requests_taken", Integer, nullable=False, server_default="0"),
    Column("last_attempt_ns", BigInteger),
    Column("last_status", Integer, nullable=False, server_default="0"),
    Column("last_error", Text, nullable=False, server_default=""),
    # When it was delivered or given up.
    Column("end_ns", BigInteger),
    # The serialized Event: the log may be compacted before it is sent.
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("webhook_id", "sequence"),
    CheckConstraint("state BETWEEN 1 AND 3", name="state"),
    partial_index("ix_webhook_deliveries_pending", "webhook_id", "task_id", "sequence", where="state = 1"),
    partial_index("ix_webhook_deliveries_delivered", "webhook_id", "end_ns", where="state = 2"),
    partial_index("ix_webhook_deliveries_dead", "webhook_id", "sequence", where="state = 3"),
)

# Queues in which a delivery waits: of each webhook one for each task, and one for events of no task. The delivery with
# the lowest sequence is sent next, not before `next_ns`; null while the webhook is disabled.
webhook_lanes = Table(
    "webhook_lanes",
    metadata,
    Column("webhook_id", Text, ForeignKey("webhooks.webhook_id"), nullable=False),
    Column("task_id", Text, nullable=False),
    Column("next_ns", BigInteger),
    PrimaryKeyConstraint("webhook_id", "task_id"),
    partial_index("ix_webhook_lanes_due", "webhook_id", "next_ns", where="next_ns IS NOT NULL"),
)
