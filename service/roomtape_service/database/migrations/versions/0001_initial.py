"""The first shape."""

import sqlalchemy as sa
from alembic import op

from roomtape_service.database.states import triggers

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "applications",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("service_state", sa.Integer(), nullable=False),
        sa.Column("profile", sa.Integer(), nullable=False),
        sa.Column("storage", sa.LargeBinary(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("update_ns", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("compacted_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("app_id", name=op.f("pk_applications")),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "requests",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("payload_hash", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app_id", "request_id", name=op.f("pk_requests")),
    )
    op.create_index("ix_requests_create", "requests", ["create_ns"], unique=False)
    op.create_table(
        "events",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("task_sequence", sa.BigInteger(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("event_ns", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["applications.app_id"], name=op.f("fk_events_app_id")),
        sa.PrimaryKeyConstraint("app_id", "sequence", name=op.f("pk_events")),
    )
    op.create_index(
        "uq_events_task",
        "events",
        ["task_id", "task_sequence"],
        unique=True,
        sqlite_where=sa.text("task_id <> ''"),
        postgresql_where=sa.text("task_id <> ''"),
    )
    op.create_table(
        "rooms",
        sa.Column("room_key", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("clock", sa.Integer(), nullable=False),
        sa.Column("epoch_ns", sa.BigInteger(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("close_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["app_id"], ["applications.app_id"], name=op.f("fk_rooms_app_id")),
        sa.PrimaryKeyConstraint("room_key", name=op.f("pk_rooms")),
    )
    op.create_index(
        "uq_rooms_open",
        "rooms",
        ["app_id", "room_id"],
        unique=True,
        sqlite_where=sa.text("close_ns IS NULL"),
        postgresql_where=sa.text("close_ns IS NULL"),
    )
    op.create_table(
        "participants",
        sa.Column("participant_key", sa.Text(), nullable=False),
        sa.Column("room_key", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("publish_session_id", sa.Text(), nullable=False),
        sa.Column("tracks", sa.LargeBinary(), nullable=False),
        sa.Column("join_ns", sa.BigInteger(), nullable=False),
        sa.Column("leave_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["room_key"], ["rooms.room_key"], name=op.f("fk_participants_room_key")),
        sa.PrimaryKeyConstraint("participant_key", name=op.f("pk_participants")),
    )
    op.create_index(
        "uq_participants_present",
        "participants",
        ["room_key", "user_id"],
        unique=True,
        sqlite_where=sa.text("leave_ns IS NULL"),
        postgresql_where=sa.text("leave_ns IS NULL"),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("room_key", sa.Text(), nullable=False),
        sa.Column("client_task_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("subscription", sa.LargeBinary(), nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("stop_reason", sa.Integer(), server_default="0", nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("stop_ns", sa.BigInteger(), nullable=True),
        sa.Column("complete_ns", sa.BigInteger(), nullable=True),
        sa.Column("idle_since_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_task_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("state BETWEEN 1 AND 6", name=op.f("ck_tasks_state")),
        sa.ForeignKeyConstraint(["app_id"], ["applications.app_id"], name=op.f("fk_tasks_app_id")),
        sa.ForeignKeyConstraint(["room_key"], ["rooms.room_key"], name=op.f("fk_tasks_room_key")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index("ix_tasks_app_start", "tasks", ["app_id", "start_ns"], unique=False)
    op.create_index("ix_tasks_room", "tasks", ["room_key"], unique=False)
    op.create_index(
        "ix_tasks_unfinished",
        "tasks",
        ["app_id", "state"],
        unique=False,
        sqlite_where=sa.text("state < 5"),
        postgresql_where=sa.text("state < 5"),
    )
    op.create_index(
        "uq_tasks_client_task",
        "tasks",
        ["room_key", "client_task_id"],
        unique=True,
        sqlite_where=sa.text("client_task_id <> '' AND state < 4"),
        postgresql_where=sa.text("client_task_id <> '' AND state < 4"),
    )
    op.create_table(
        "recordings",
        sa.Column("recording_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=True),
        sa.Column("next_segment", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_recordings_task_id")),
        sa.PrimaryKeyConstraint("recording_id", name=op.f("pk_recordings")),
    )
    op.create_index("ix_recordings_task", "recordings", ["task_id"], unique=False)
    op.create_table(
        "segments",
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("recording_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("container", sa.Integer(), nullable=False),
        sa.Column("codec", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("spool_path", sa.Text(), nullable=True),
        sa.Column("object_key", sa.Text(), server_default="", nullable=False),
        sa.Column("url", sa.Text(), server_default="", nullable=False),
        sa.Column("store", sa.Text(), server_default="", nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=True),
        sa.Column("duration_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sample_rate", sa.Integer(), server_default="0", nullable=False),
        sa.Column("channels", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sample_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("encoder_delay", sa.Integer(), server_default="0", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("interrupted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("statistics", sa.LargeBinary(), nullable=True),
        sa.Column("resume", sa.Text(), server_default="{}", nullable=False),
        sa.Column("upload_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_ns", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state BETWEEN 1 AND 4", name=op.f("ck_segments_state")),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["recordings.recording_id"], name=op.f("fk_segments_recording_id")
        ),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_segments")),
        sa.UniqueConstraint("recording_id", "segment_id", "container", name="uq_segments_number"),
    )
    op.create_index("ix_segments_app_start", "segments", ["app_id", "start_ns"], unique=False)
    op.create_index("ix_segments_task", "segments", ["task_id"], unique=False)
    op.create_index(
        "ix_segments_unstored",
        "segments",
        ["app_id", "next_attempt_ns"],
        unique=False,
        sqlite_where=sa.text("state < 4"),
        postgresql_where=sa.text("state < 4"),
    )
    op.create_index(
        "ix_segments_on_spool",
        "segments",
        ["file_id"],
        unique=False,
        sqlite_where=sa.text("state = 4 AND spool_path IS NOT NULL"),
        postgresql_where=sa.text("state = 4 AND spool_path IS NOT NULL"),
    )
    op.create_index(
        "uq_segments_object",
        "segments",
        ["store", "object_key"],
        unique=True,
        sqlite_where=sa.text("object_key <> ''"),
        postgresql_where=sa.text("object_key <> ''"),
    )
    for statement in triggers(op.get_context().dialect.name):
        op.execute(statement)
