"""Rooms as rows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import room_pb2, task_pb2
from roomtape_service.database.tables import rooms, segments, tasks

__all__ = [
    "NO_EPOCH_NS",
    "RoomRow",
    "close_room",
    "find_room",
    "insert_room",
    "open_rooms",
    "reached_ns",
    "set_epoch",
]

NO_EPOCH_NS = -1
"""The epoch of a room on a MEDIA clock to which nobody has come yet."""


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A row of `rooms`; times in UTC nanoseconds."""

    room_key: str
    app_id: str
    room_id: str
    clock: int
    epoch_ns: int
    create_ns: int
    close_ns: int | None = None


_COLUMNS = tuple(rooms.c[field.name] for field in fields(RoomRow))


async def insert_room(connection: AsyncConnection, row: RoomRow) -> None:
    """Opens a room; a second open room of the same id is refused by the database."""
    await connection.execute(
        sa.insert(rooms).values(
            room_key=row.room_key,
            app_id=row.app_id,
            room_id=row.room_id,
            clock=row.clock,
            epoch_ns=row.epoch_ns,
            create_ns=row.create_ns,
        )
    )


async def set_epoch(connection: AsyncConnection, room_key: str, epoch_ns: int) -> None:
    """Somebody came to a room with `NO_EPOCH_NS`: its time begins."""
    await connection.execute(sa.update(rooms).where(rooms.c.room_key == room_key).values(epoch_ns=epoch_ns))


async def close_room(connection: AsyncConnection, room_key: str, close_ns: int) -> None:
    """Closes a room; its id is free again."""
    await connection.execute(sa.update(rooms).where(rooms.c.room_key == room_key).values(close_ns=close_ns))


async def open_rooms(connection: AsyncConnection) -> Sequence[RoomRow]:
    """All open rooms of all applications."""
    result = await connection.execute(sa.select(*_COLUMNS).where(rooms.c.close_ns.is_(None)))
    return [RoomRow(*row) for row in result]


async def reached_ns(connection: AsyncConnection) -> int:
    """How far the time of rooms on an ARRIVAL clock has come that have unfinished tasks: recorded until then, in UTC.

    0 without such rooms.
    """
    live = sa.and_(
        rooms.c.close_ns.is_(None),
        rooms.c.clock == room_pb2.ROOM_CLOCK_ARRIVAL,
        tasks.c.state <= task_pb2.TASK_STATE_FINALIZING,
    )
    started = sa.select(sa.func.max(tasks.c.start_ns)).join(rooms, rooms.c.room_key == tasks.c.room_key)
    recorded = (
        sa.select(sa.func.max(segments.c.end_ns))
        .join(tasks, tasks.c.task_id == segments.c.task_id)
        .join(rooms, rooms.c.room_key == tasks.c.room_key)
    )
    newest = [await connection.scalar(query.where(live)) for query in (started, recorded)]
    return max(each or 0 for each in newest)


async def find_room(connection: AsyncConnection, room_key: str) -> RoomRow:
    """The room with this key, open or closed. Raises LookupError."""
    row = (await connection.execute(sa.select(*_COLUMNS).where(rooms.c.room_key == room_key))).first()
    if row is None:
        raise LookupError(f"there is no room {room_key!r}")
    return RoomRow(*row)
