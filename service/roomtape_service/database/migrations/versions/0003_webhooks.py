"""Webhooks; logs that know their size."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _measure_logs()
    _create_webhooks()
    _create_deliveries()


def _measure_logs() -> None:
    op.add_column("events", sa.Column("logged_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE events SET logged_bytes = sums.total FROM (SELECT app_id, sequence, "
        "SUM(LENGTH(payload)) OVER (PARTITION BY app_id ORDER BY sequence) AS total FROM events) AS sums "
        "WHERE sums.app_id = events.app_id AND sums.sequence = events.sequence"
    )


def _create_webhooks() -> None:
    op.add_column(
        "applications", sa.Column("webhooks_version", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("vendor_app_id", sa.Text(), nullable=False),
        sa.Column("filter", sa.LargeBinary(), nullable=False),
        sa.Column("retry", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("has_string_room_ids", sa.Boolean(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("update_ns", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("delete_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_success_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_failure_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["applications.app_id"], name=op.f("fk_webhooks_app_id")),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_app", "webhooks", ["app_id", "create_ns", "webhook_id"])
    op.create_table(
        "webhook_keys",
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("expire_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.webhook_id"], name=op.f("fk_webhook_keys_webhook_id")
        ),
        sa.PrimaryKeyConstraint("webhook_id", "number", name=op.f("pk_webhook_keys")),
    )


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("event_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("queue_ns", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requests_taken", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_attempt_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("state BETWEEN 1 AND 3", name=op.f("ck_webhook_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.webhook_id"], name=op.f("fk_webhook_deliveries_webhook_id")
        ),
        sa.PrimaryKeyConstraint("webhook_id", "sequence", name=op.f("pk_webhook_deliveries")),
    )
    _index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["webhook_id", "task_id", "sequence"],
        "state = 1",
    )
    _index("ix_webhook_deliveries_delivered", "webhook_deliveries", ["webhook_id", "end_ns"], "state = 2")
    _index("ix_webhook_deliveries_dead", "webhook_deliveries", ["webhook_id", "sequence"], "state = 3")
    op.create_table(
        "webhook_lanes",
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("next_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.webhook_id"], name=op.f("fk_webhook_lanes_webhook_id")
        ),
        sa.PrimaryKeyConstraint("webhook_id", "task_id", name=op.f("pk_webhook_lanes")),
    )
    _index("ix_webhook_lanes_due", "webhook_lanes", ["webhook_id", "next_ns"], "next_ns IS NOT NULL")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
