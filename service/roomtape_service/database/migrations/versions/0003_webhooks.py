"""Logs that know their size."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _measure_logs()


def _measure_logs() -> None:
    op.add_column("events", sa.Column("logged_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE events SET logged_bytes = sums.total FROM (SELECT app_id, sequence, "
        "SUM(LENGTH(payload)) OVER (PARTITION BY app_id ORDER BY sequence) AS total FROM events) AS sums "
        "WHERE sums.app_id = events.app_id AND sums.sequence = events.sequence"
    )
