"""Refusals that several orders have in common."""

from roomtape.v1 import error_pb2
from roomtape_service.errors import Refusal

__all__ = ["task_not_found"]


def task_not_found(app_id: str, task_id: str) -> Refusal:
    """The application has no such task."""
    return Refusal(
        error_pb2.ERROR_REASON_TASK_NOT_FOUND,
        f"There is no task {task_id!r} in application {app_id!r}.",
        metadata={"appId": app_id, "taskId": task_id},
    )
