"""What applications were told once, so that no restart and no other node tells it again."""

from sqlalchemy import delete, insert, select

from roomtape_service.database.tables import meta
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["is_news"]

_PREFIX = "told"


async def is_news(unit: UnitOfWork, app_id: str, subject: str, content: str) -> bool:
    """Whether the application was told something else of the subject last, or nothing; from now on it was told this.

    Belongs into the unit that tells, after its lock of the application.
    """
    key = f"{_PREFIX}/{app_id}/{subject}"
    if await unit.connection.scalar(select(meta.c.value).where(meta.c.key == key)) == content:
        return False
    await unit.connection.execute(delete(meta).where(meta.c.key == key))
    await unit.connection.execute(insert(meta).values(key=key, value=content))
    return True
