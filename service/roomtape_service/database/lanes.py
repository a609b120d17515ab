"""Applications whose first store takes nothing, as rows: there from the first failure to the first success."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import upload_lanes

__all__ = ["FailingLane", "failing", "failing_lanes", "fails", "takes", "use_secondary"]


@dataclass(frozen=True, slots=True)
class FailingLane:
    """A row of `upload_lanes`; `store` is the identity of the store that takes nothing since `failing_ns` (UTC)."""

    app_id: str
    store: str
    failing_ns: int
    uses_secondary: bool


_COLUMNS = tuple(upload_lanes.c[field.name] for field in fields(FailingLane))


async def failing_lanes(connection: AsyncConnection) -> Sequence[FailingLane]:
    """All of them."""
    return [FailingLane(*row) for row in await connection.execute(sa.select(*_COLUMNS))]


async def failing(connection: AsyncConnection, app_id: str) -> FailingLane | None:
    """The application's, if its first store takes nothing."""
    row = (await connection.execute(sa.select(*_COLUMNS).where(upload_lanes.c.app_id == app_id))).first()
    return None if row is None else FailingLane(*row)


async def fails(connection: AsyncConnection, app_id: str, store: str, now_ns: int) -> None:
    """The store took nothing: since now, unless that is known of it since before."""
    known = await failing(connection, app_id)
    if known is not None and known.store == store:
        return
    await takes(connection, app_id)
    values = {"app_id": app_id, "store": store, "failing_ns": now_ns}
    await connection.execute(sa.insert(upload_lanes).values(**values))


async def use_secondary(connection: AsyncConnection, app_id: str) -> bool:
    """Segments go to the secondary store from now on. Returns whether that is news."""
    update = sa.update(upload_lanes).where(
        upload_lanes.c.app_id == app_id, sa.not_(upload_lanes.c.uses_secondary)
    )
    return bool((await connection.execute(update.values(uses_secondary=True))).rowcount)


async def takes(connection: AsyncConnection, app_id: str) -> FailingLane | None:
    """The first store took something, or is another one now. Returns what was known of its failing."""
    known = await failing(connection, app_id)
    if known is not None:
        await connection.execute(sa.delete(upload_lanes).where(upload_lanes.c.app_id == app_id))
    return known
