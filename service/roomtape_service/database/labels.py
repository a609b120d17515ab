"""The labels of tasks as rows, for the search by them."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.tables import task_labels

__all__ = ["add_labels", "tasks_labelled"]


async def add_labels(
    connection: AsyncConnection, app_id: str, task_id: str, labels: Mapping[str, str]
) -> None:
    """A task begins that has these labels."""
    if labels:
        rows = [
            {"task_id": task_id, "app_id": app_id, "key": key, "value": value}
            for key, value in labels.items()
        ]
        await connection.execute(sa.insert(task_labels), rows)


def tasks_labelled(app_id: str, key: str, value: str) -> sa.Select[tuple[str]]:
    """The ids of the application's tasks that have this label."""
    return sa.select(task_labels.c.task_id).where(
        task_labels.c.app_id == app_id, task_labels.c.key == key, task_labels.c.value == value
    )
