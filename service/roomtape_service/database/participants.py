"""Participants as rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import room_pb2
from roomtape_service.database.tables import participants

__all__ = ["ParticipantRow", "insert_participant", "mark_left", "present_participants", "update_tracks"]


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


async def mark_left(connection: AsyncConnection, participant_key: str, leave_ns: int) -> None:
    """A user leaves."""
    condition = participants.c.participant_key == participant_key
    await connection.execute(sa.update(participants).where(condition).values(leave_ns=leave_ns))


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
