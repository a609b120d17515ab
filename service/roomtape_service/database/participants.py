"""Participants as rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import room_pb2
from roomtape_service.database.tables import mutes, participants

__all__ = [
    "MuteRow",
    "ParticipantRow",
    "PresenceRow",
    "add_mutes",
    "insert_participant",
    "mark_left",
    "mutes_of_room",
    "presences_of_room",
    "present_participants",
    "update_tracks",
]


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """A row of `participants`; `tracks` is a serialized Participant of which only the tracks count."""

    participant_key: str
    room_key: str
    app_id: str
    room_id: str
    user_id: str
    publish_session_id: str
    tracks: bytes
    join_ns: int
    room_join_ns: int | None = None
    """`join_ns` by the room's clock; None if it was not kept."""


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """When a participant was in a room, UTC nanoseconds of the room's clock; `tracks` as in ParticipantRow."""

    participant_key: str
    user_id: str
    publish_session_id: str
    tracks: bytes
    join_ns: int
    leave_ns: int | None


@dataclass(frozen=True, slots=True)
class MuteRow:
    """A track fell silent or spoke again; UTC nanoseconds of the room's clock."""

    participant_key: str
    track_id: str
    time_ns: int
    muted: bool


async def insert_participant(connection: AsyncConnection, row: ParticipantRow) -> None:
    """A user joins."""
    await connection.execute(
        sa.insert(participants).values(
            participant_key=row.participant_key,
            room_key=row.room_key,
            app_id=row.app_id,
            room_id=row.room_id,
            user_id=row.user_id,
            publish_session_id=row.publish_session_id,
            tracks=row.tracks,
            join_ns=row.join_ns,
            room_join_ns=row.room_join_ns,
        )
    )


async def update_tracks(
    connection: AsyncConnection, participant_key: str, tracks: room_pb2.Participant
) -> None:
    """Stores the tracks of a participant with their present conditions."""
    condition = participants.c.participant_key == participant_key
    await connection.execute(
        sa.update(participants).where(condition).values(tracks=tracks.SerializeToString())
    )


async def mark_left(
    connection: AsyncConnection, participant_key: str, leave_ns: int, room_leave_ns: int
) -> None:
    """A user leaves; `room_leave_ns` by the room's clock."""
    condition = participants.c.participant_key == participant_key
    values = {"leave_ns": leave_ns, "room_leave_ns": room_leave_ns}
    await connection.execute(sa.update(participants).where(condition).values(values))


async def add_mutes(connection: AsyncConnection, rows: Iterable[MuteRow]) -> None:
    """Tracks fell silent or speak again. Of several at one time of a track the last stays."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for row in rows:
        values = {field.name: getattr(row, field.name) for field in fields(MuteRow)}
        statement = insert(mutes).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=["participant_key", "track_id", "time_ns"], set_={"muted": row.muted}
        )
        await connection.execute(statement)


async def presences_of_room(connection: AsyncConnection, room_key: str) -> Sequence[PresenceRow]:
    """Everybody who is or was in a room, by join order."""
    table = participants.c
    joined_ns = sa.func.coalesce(table.room_join_ns, table.join_ns)
    left_ns = sa.func.coalesce(table.room_leave_ns, table.leave_ns)
    columns = (
        table.participant_key,
        table.user_id,
        table.publish_session_id,
        table.tracks,
        joined_ns,
        left_ns,
    )
    query = sa.select(*columns).where(table.room_key == room_key)
    query = query.order_by(joined_ns, table.participant_key)
    return [PresenceRow(*row) for row in await connection.execute(query)]


async def mutes_of_room(connection: AsyncConnection, room_key: str) -> Sequence[MuteRow]:
    """All mutes of a room's participants, by participant, track and time."""
    query = sa.select(*(mutes.c[field.name] for field in fields(MuteRow)))
    query = query.join(participants, participants.c.participant_key == mutes.c.participant_key)
    query = query.where(participants.c.room_key == room_key)
    query = query.order_by(mutes.c.participant_key, mutes.c.track_id, mutes.c.time_ns)
    return [MuteRow(*row) for row in await connection.execute(query)]


async def present_participants(connection: AsyncConnection) -> Sequence[ParticipantRow]:
    """Everybody who is in an open room, by join order."""
    table = participants.c
    columns = (
        table.participant_key,
        table.room_key,
        table.app_id,
        table.room_id,
        table.user_id,
        table.publish_session_id,
        table.tracks,
        table.join_ns,
    )
    query = sa.select(*columns).where(table.leave_ns.is_(None)).order_by(table.join_ns, table.participant_key)
    return [ParticipantRow(*row) for row in await connection.execute(query)]
