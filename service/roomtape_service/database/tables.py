"""The tables. Times are UTC nanoseconds (`*_ns`), enums are the numbers of the proto.

The shape of a database that exists is made by `migrations`; a test compares the two.
"""

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
    UniqueConstraint,
    text,
)

from roomtape_service.database.schema import metadata, partial_index
from roomtape_service.database.webhook_tables import (
    webhook_deliveries,
    webhook_keys,
    webhook_lanes,
    webhooks,
)

__all__ = [
    "applications",
    "events",
    "gaps",
    "interruptions",
    "manifests",
    "meta",
    "metadata",
    "multiparts",
    "mutes",
    "participants",
    "parts",
    "recordings",
    "removals",
    "requests",
    "rooms",
    "scopes",
    "segments",
    "task_labels",
    "tasks",
    "upload_lanes",
    "webhook_deliveries",
    "webhook_keys",
    "webhook_lanes",
    "webhooks",
]

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

applications = Table(
    "applications",
    metadata,
    Column("app_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("service_state", Integer, nullable=False),
    Column("profile", Integer, nullable=False),
    # A serialized StorageSettings, its secrets encrypted.
    Column("storage", LargeBinary, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    Column("update_ns", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # The newest event, and the newest that retention took away.
    Column("last_sequence", BigInteger, nullable=False, server_default="0"),
    Column("compacted_sequence", BigInteger, nullable=False, server_default="0"),
    # Another number after each change of the application's webhooks; 0 without any.
    Column("webhooks_version", BigInteger, nullable=False, server_default="0"),
)

rooms = Table(
    "rooms",
    metadata,
    Column("room_key", Text, primary_key=True),
    Column("app_id", Text, ForeignKey("applications.app_id"), nullable=False),
    Column("room_id", Text, nullable=False),
    Column("clock", Integer, nullable=False),
    Column("epoch_ns", BigInteger, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    Column("close_ns", BigInteger),
    partial_index("uq_rooms_open", "app_id", "room_id", where="close_ns IS NULL", unique=True),
)

participants = Table(
    "participants",
    metadata,
    Column("participant_key", Text, primary_key=True),
    Column("room_key", Text, ForeignKey("rooms.room_key"), nullable=False),
    Column("app_id", Text, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("publish_session_id", Text, nullable=False),
    # A serialized Participant that holds the tracks.
    Column("tracks", LargeBinary, nullable=False),
    Column("join_ns", BigInteger, nullable=False),
    Column("leave_ns", BigInteger),
    # The same two by the room's clock; null in rows of before it was kept.
    Column("room_join_ns", BigInteger),
    Column("room_leave_ns", BigInteger),
    Index("ix_participants_room", "room_key", "join_ns"),
    partial_index("uq_participants_present", "room_key", "user_id", where="leave_ns IS NULL", unique=True),
)

# When tracks fell silent and spoke again, by the room's clock.
mutes = Table(
    "mutes",
    metadata,
    Column("participant_key", Text, ForeignKey("participants.participant_key"), nullable=False),
    Column("track_id", Text, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("muted", Boolean, nullable=False),
    PrimaryKeyConstraint("participant_key", "track_id", "time_ns"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("app_id", Text, ForeignKey("applications.app_id"), nullable=False),
    Column("room_id", Text, nullable=False),
    Column("room_key", Text, ForeignKey("rooms.room_key"), nullable=False),
    Column("client_task_id", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("subscription", LargeBinary, nullable=False),
    Column("output", LargeBinary, nullable=False),
    # A JSON object of strings.
    Column("labels", Text, nullable=False),
    Column("stop_reason", Integer, nullable=False, server_default="0"),
    Column("start_ns", BigInteger, nullable=False),
    Column("stop_ns", BigInteger),
    Column("complete_ns", BigInteger),
    Column("idle_since_ns", BigInteger),
    Column("last_task_sequence", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("state BETWEEN 1 AND 6", name="state"),
    Index("ix_tasks_app_start", "app_id", "start_ns"),
    Index("ix_tasks_room", "room_key"),
    partial_index("ix_tasks_unfinished", "app_id", "state", where="state < 5"),
    partial_index(
        "uq_tasks_client_task",
        "room_key",
        "client_task_id",
        where="client_task_id <> '' AND state < 4",
        unique=True,
    ),
)

# The labels of `tasks` once more, for the search by them.
task_labels = Table(
    "task_labels",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.task_id"), nullable=False),
    Column("app_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("task_id", "key"),
    Index("ix_task_labels_value", "app_id", "key", "value"),
)

# What a task took of its room, and from when on, by the room's clock.
scopes = Table(
    "scopes",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.task_id"), nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("subscription", LargeBinary, nullable=False),
    PrimaryKeyConstraint("task_id", "time_ns"),
)

recordings = Table(
    "recordings",
    metadata,
    Column("recording_id", Text, primary_key=True),
    Column("task_id", Text, ForeignKey("tasks.task_id"), nullable=False),
    Column("app_id", Text, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger),
    Column("next_segment", Integer, nullable=False, server_default="0"),
    # JSON: of each track that was not safe when the task was stopped, the newest sequence that had come. NULL before.
    Column("came", Text),
    Index("ix_recordings_task", "task_id"),
)

segments = Table(
    "segments",
    metadata,
    Column("file_id", Text, primary_key=True),
    Column("recording_id", Text, ForeignKey("recordings.recording_id"), nullable=False),
    Column("task_id", Text, nullable=False),
    Column("app_id", Text, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("segment_id", Integer, nullable=False),
    Column("container", Integer, nullable=False),
    Column("codec", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("spool_path", Text),
    Column("object_key", Text, nullable=False, server_default=""),
    Column("url", Text, nullable=False, server_default=""),
    # Which store it went to.
    Column("store", Text, nullable=False, server_default=""),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger),
    Column("duration_ns", BigInteger, nullable=False, server_default="0"),
    Column("sample_rate", Integer, nullable=False, server_default="0"),
    Column("channels", Integer, nullable=False, server_default="0"),
    Column("sample_count", BigInteger, nullable=False, server_default="0"),
    Column("encoder_delay", Integer, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("sha256", Text, nullable=False, server_default=""),
    Column("interrupted", Boolean, nullable=False, server_default=text("false")),
    # A serialized FrameStatistics.
    Column("statistics", LargeBinary),
    # Where to go on after a crash: a JSON object, track key to sequence and offset.
    Column("resume", Text, nullable=False, server_default="{}"),
    Column("upload_attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_ns", BigInteger),
    # When its retention ends; null: never.
    Column("expire_ns", BigInteger),
    # How many segments, from `segment_id` on, were joined into this file; 0 for a segment itself.
    Column("joined", Integer, nullable=False, server_default="0"),
    CheckConstraint("state BETWEEN 1 AND 8", name="state"),
    partial_index("uq_segments_object", "store", "object_key", where="object_key <> ''", unique=True),
    partial_index(
        "uq_segments_number", "recording_id", "segment_id", "container", where="joined = 0", unique=True
    ),
    # The same segments are joined once, unless the file is gone.
    partial_index(
        "uq_segments_joined",
        "recording_id",
        "segment_id",
        "container",
        "joined",
        where="joined > 0 AND state < 5",
        unique=True,
    ),
    Index("ix_segments_task", "task_id"),
    # The library: what is in a store, by what it is searched for.
    partial_index("ix_segments_stored", "app_id", "start_ns", "file_id", where="state = 4"),
    partial_index("ix_segments_of_room", "app_id", "room_id", "start_ns", where="state = 4"),
    partial_index("ix_segments_of_user", "app_id", "user_id", "start_ns", where="state = 4"),
    partial_index(
        "ix_segments_key",
        "app_id",
        "object_key",
        where="state = 4",
        # A prefix is a range of bytes, and not of a language's letters.
        postgresql_ops={"object_key": "text_pattern_ops"},
    ),
    partial_index("ix_segments_unstored", "app_id", "next_attempt_ns", where="state < 4"),
    # Files that are done with and still on the spool.
    partial_index("ix_segments_on_spool", "file_id", where="state >= 4 AND spool_path IS NOT NULL"),
    partial_index("ix_segments_expire", "expire_ns", where="state = 4 AND expire_ns IS NOT NULL"),
)

# Multipart uploads that a store may hold parts of. A row is there before the store is asked for one, and goes after the
# store completed or aborted it.
multiparts = Table(
    "multiparts",
    metadata,
    Column("multipart_id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("file_id", Text, nullable=False),
    Column("store", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    # The store's name for it; empty while its answer is not known.
    Column("upload_id", Text, nullable=False, server_default=""),
    Column("part_bytes", BigInteger, nullable=False),
    # Whether it is to be aborted: it is not the file's any more.
    Column("is_left", Boolean, nullable=False, server_default=text("false")),
    Column("create_ns", BigInteger, nullable=False),
    Column("next_attempt_ns", BigInteger),
    Index("ix_multiparts_file", "file_id"),
    partial_index("ix_multiparts_left", "app_id", "next_attempt_ns", where="is_left"),
)

# Parts of multiparts. A row is there before the part is sent; `tag` when the store has confirmed it.
parts = Table(
    "parts",
    metadata,
    Column("multipart_id", Text, ForeignKey("multiparts.multipart_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # Of what was sent, to be compared with the finished file.
    Column("crc32", BigInteger, nullable=False),
    Column("tag", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("multipart_id", "number"),
)

# Applications whose first store takes nothing: since when, and whether segments go to the secondary one.
upload_lanes = Table(
    "upload_lanes",
    metadata,
    Column("app_id", Text, ForeignKey("applications.app_id"), primary_key=True),
    Column("store", Text, nullable=False),
    Column("failing_ns", BigInteger, nullable=False),
    Column("uses_secondary", Boolean, nullable=False, server_default=text("false")),
)

# Objects that are to be removed from a store: their files were deleted or expired.
removals = Table(
    "removals",
    metadata,
    Column("removal_id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("store", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_ns", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("store", "object_key", name="uq_removals_object"),
    Index("ix_removals_due", "app_id", "store", "next_attempt_ns"),
)

# Of each task what its manifest should say (`wanted`, a count of changes), and what the one in the store says.
manifests = Table(
    "manifests",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.task_id"), primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("wanted", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False, server_default="0"),
    Column("is_complete", Boolean, nullable=False, server_default=text("false")),
    Column("store", Text, nullable=False, server_default=""),
    Column("object_key", Text, nullable=False, server_default=""),
    Column("url", Text, nullable=False, server_default=""),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("sha256", Text, nullable=False, server_default=""),
    Column("update_ns", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_ns", BigInteger, nullable=False, server_default="0"),
    Index("ix_manifests_object", "store", "object_key"),
    partial_index("ix_manifests_due", "next_attempt_ns", where="written < wanted"),
)

# What is missing in recordings, for the manifest: events may be compacted before it is written.
gaps = Table(
    "gaps",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.task_id"), nullable=False),
    Column("recording_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("reason", Integer, nullable=False),
    PrimaryKeyConstraint("recording_id", "user_id", "start_ns", "end_ns"),
    Index("ix_gaps_task", "task_id"),
)

# Which segments ended by a fault, for the manifest.
interruptions = Table(
    "interruptions",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.task_id"), nullable=False),
    Column("recording_id", Text, nullable=False),
    Column("segment_id", Integer, nullable=False),
    Column("cause", Integer, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("recording_id", "segment_id"),
    Index("ix_interruptions_task", "task_id"),
)

requests = Table(
    "requests",
    metadata,
    Column("app_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("app_id", "request_id"),
    Index("ix_requests_create", "create_ns"),
)

events = Table(
    "events",
    metadata,
    Column("app_id", Text, ForeignKey("applications.app_id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # Empty and 0 for events of no task.
    Column("task_id", Text, nullable=False),
    Column("task_sequence", BigInteger, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("type", Integer, nullable=False),
    Column("event_ns", BigInteger, nullable=False),
    # The serialized Event.
    Column("payload", LargeBinary, nullable=False),
    # Sizes of the payloads up to this one, from any beginning: differences say what a stretch of the log takes.
    Column("logged_bytes", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("app_id", "sequence"),
    partial_index("uq_events_task", "task_id", "task_sequence", where="task_id <> ''", unique=True),
)
