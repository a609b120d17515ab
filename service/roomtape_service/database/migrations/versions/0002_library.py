"""Uploads that go on where they stopped, the library's states, manifests."""

import json

import sqlalchemy as sa
from alembic import op

from roomtape_service.database.states import triggers, triggers_removed

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = ["recording_id", "segment_id", "container"]
_STATES = "state BETWEEN 1 AND 8"


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    for statement in triggers_removed(dialect):
        op.execute(statement)
    if dialect == "sqlite":
        _widen_segments_of_sqlite()
    else:
        op.add_column("segments", sa.Column("expire_ns", sa.BigInteger(), nullable=True))
        op.add_column("segments", sa.Column("joined", sa.Integer(), server_default="0", nullable=False))
        op.drop_constraint(op.f("ck_segments_state"), "segments", type_="check")
        op.create_check_constraint(op.f("ck_segments_state"), "segments", _STATES)
        op.drop_constraint(op.f("uq_segments_number"), "segments", type_="unique")
        for index in ("ix_segments_app_start", "ix_segments_on_spool"):
            op.drop_index(index, "segments")
    _index_segments()
    for statement in triggers(dialect):
        op.execute(statement)
    _create_uploads()
    _create_manifests()
    _create_presence()
    _create_labels()


def _widen_segments_of_sqlite() -> None:
    """SQLite changes no constraint of a table that exists: a new one takes its rows and its name."""
    op.create_table(
        "segments_wide",
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
        sa.Column("expire_ns", sa.BigInteger(), nullable=True),
        sa.Column("joined", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(_STATES, name=op.f("ck_segments_state")),
        sa.ForeignKeyConstraint(
            ["recording_id"], ["recordings.recording_id"], name=op.f("fk_segments_recording_id")
        ),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_segments")),
    )
    columns = (
        "file_id, recording_id, task_id, app_id, room_id, kind, user_id, segment_id, container, codec, state, "
        "spool_path, object_key, url, store, start_ns, end_ns, duration_ns, sample_rate, channels, sample_count, "
        "encoder_delay, size_bytes, sha256, interrupted, statistics, resume, upload_attempts, next_attempt_ns"
    )
    op.execute(f"INSERT INTO segments_wide ({columns}) SELECT {columns} FROM segments")
    op.drop_table("segments")
    op.rename_table("segments_wide", "segments")
    op.create_index("ix_segments_task", "segments", ["task_id"])
    _partial_index("ix_segments_unstored", "segments", ["app_id", "next_attempt_ns"], "state < 4")
    _partial_index("uq_segments_object", "segments", ["store", "object_key"], "object_key <> ''", unique=True)


def _index_segments() -> None:
    _partial_index("uq_segments_number", "segments", _NUMBER, "joined = 0", unique=True)
    _partial_index(
        "uq_segments_joined", "segments", [*_NUMBER, "joined"], "joined > 0 AND state < 5", unique=True
    )
    _partial_index("ix_segments_on_spool", "segments", ["file_id"], "state >= 4 AND spool_path IS NOT NULL")
    _partial_index("ix_segments_expire", "segments", ["expire_ns"], "state = 4 AND expire_ns IS NOT NULL")
    _partial_index("ix_segments_stored", "segments", ["app_id", "start_ns", "file_id"], "state = 4")
    _partial_index("ix_segments_of_room", "segments", ["app_id", "room_id", "start_ns"], "state = 4")
    _partial_index("ix_segments_of_user", "segments", ["app_id", "user_id", "start_ns"], "state = 4")
    op.create_index(
        "ix_segments_key",
        "segments",
        ["app_id", "object_key"],
        sqlite_where=sa.text("state = 4"),
        postgresql_where=sa.text("state = 4"),
        postgresql_ops={"object_key": "text_pattern_ops"},
    )


def _create_uploads() -> None:
    op.create_table(
        "multiparts",
        sa.Column("multipart_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Text(), server_default="", nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_left", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("multipart_id", name=op.f("pk_multiparts")),
    )
    op.create_index("ix_multiparts_file", "multiparts", ["file_id"])
    _partial_index("ix_multiparts_left", "multiparts", ["app_id", "next_attempt_ns"], "is_left")
    op.create_table(
        "parts",
        sa.Column("multipart_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.Column("tag", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["multipart_id"], ["multiparts.multipart_id"], name=op.f("fk_parts_multipart_id")
        ),
        sa.PrimaryKeyConstraint("multipart_id", "number", name=op.f("pk_parts")),
    )
    op.create_table(
        "upload_lanes",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("failing_ns", sa.BigInteger(), nullable=False),
        sa.Column("uses_secondary", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["applications.app_id"], name=op.f("fk_upload_lanes_app_id")),
        sa.PrimaryKeyConstraint("app_id", name=op.f("pk_upload_lanes")),
    )
    op.create_table(
        "removals",
        sa.Column("removal_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("create_ns", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("removal_id", name=op.f("pk_removals")),
        sa.UniqueConstraint("store", "object_key", name="uq_removals_object"),
    )
    op.create_index("ix_removals_due", "removals", ["app_id", "store", "next_attempt_ns"])


def _create_manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("is_complete", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("store", sa.Text(), server_default="", nullable=False),
        sa.Column("object_key", sa.Text(), server_default="", nullable=False),
        sa.Column("url", sa.Text(), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("update_ns", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_manifests_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_manifests")),
    )
    op.create_index("ix_manifests_object", "manifests", ["store", "object_key"])
    _partial_index("ix_manifests_due", "manifests", ["next_attempt_ns"], "written < wanted")
    op.create_table(
        "gaps",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("recording_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_gaps_task_id")),
        sa.PrimaryKeyConstraint("recording_id", "user_id", "start_ns", "end_ns", name=op.f("pk_gaps")),
    )
    op.create_index("ix_gaps_task", "gaps", ["task_id"])
    op.create_table(
        "interruptions",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("recording_id", sa.Text(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Integer(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_interruptions_task_id")),
        sa.PrimaryKeyConstraint("recording_id", "segment_id", name=op.f("pk_interruptions")),
    )
    op.create_index("ix_interruptions_task", "interruptions", ["task_id"])


def _create_presence() -> None:
    op.add_column("recordings", sa.Column("came", sa.Text(), nullable=True))
    op.add_column("participants", sa.Column("room_join_ns", sa.BigInteger(), nullable=True))
    op.add_column("participants", sa.Column("room_leave_ns", sa.BigInteger(), nullable=True))
    op.create_index("ix_participants_room", "participants", ["room_key", "join_ns"])
    op.create_table(
        "mutes",
        sa.Column("participant_key", sa.Text(), nullable=False),
        sa.Column("track_id", sa.Text(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_key"], ["participants.participant_key"], name=op.f("fk_mutes_participant_key")
        ),
        sa.PrimaryKeyConstraint("participant_key", "track_id", "time_ns", name=op.f("pk_mutes")),
    )
    op.create_table(
        "scopes",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("subscription", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_scopes_task_id")),
        sa.PrimaryKeyConstraint("task_id", "time_ns", name=op.f("pk_scopes")),
    )


def _create_labels() -> None:
    labels = op.create_table(
        "task_labels",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_labels_task_id")),
        sa.PrimaryKeyConstraint("task_id", "key", name=op.f("pk_task_labels")),
    )
    op.create_index("ix_task_labels_value", "task_labels", ["app_id", "key", "value"])
    rows = op.get_bind().execute(sa.text("SELECT task_id, app_id, labels FROM tasks WHERE labels <> '{}'"))
    found = [
        {"task_id": task_id, "app_id": app_id, "key": key, "value": value}
        for task_id, app_id, text in rows
        for key, value in json.loads(text).items()
    ]
    if found:
        op.bulk_insert(labels, found)


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
