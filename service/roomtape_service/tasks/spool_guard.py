"""What follows when the spool fills up, and when it has room again."""

from collections.abc import Callable

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.database.database import Database
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.spool.quota import SpoolState
from roomtape_service.tasks.tasks import Tasks

__all__ = ["SpoolGuard"]

_RETRY_SECONDS = 30.0
"""Uploads make room in seconds, operators in minutes."""

_NEARLY_FULL = (
    error_pb2.ERROR_REASON_SPOOL_NEARLY_FULL,
    "The server's disk fills up with segments that are in no store yet; soon no task can be started, and then nothing "
    "is recorded. See that the store takes segments, or make room on that disk.",
)
_FULL = (
    error_pb2.ERROR_REASON_SPOOL_FULL,
    "The server's disk is full: nothing is recorded before there is room. See that the store takes segments, or make "
    "room on that disk; recording goes on by itself.",
)


class SpoolGuard:
    """Tells applications that have running tasks, refuses new tasks, and has recording pause while the spool is full.

    `state` says how full it is.
    """

    def __init__(
        self, database: Database, tasks: Tasks, pool: WorkerPool, state: Callable[[], SpoolState]
    ) -> None:
        self._database = database
        self._tasks = tasks
        self._pool = pool
        self._state = state

    async def changed(self, before: SpoolState, after: SpoolState) -> None:
        """See OnSpoolChange. Raises what the database raises; what was done before is done again then."""
        if after is SpoolState.FULL:
            self._pool.pause()
            await self._warn(*_FULL)
        else:
            self._pool.go_on()
            if before is SpoolState.OK:
                await self._warn(*_NEARLY_FULL)

    def require_room(self) -> None:
        """Raises Refusal SPOOL_FULL when no task may be started."""
        if self._state() < SpoolState.REFUSING:
            return
        raise Refusal(
            error_pb2.ERROR_REASON_SPOOL_FULL,
            "The server's disk is nearly full of segments that are in no store yet; try again when uploads have made "
            "room.",
            retry_after_seconds=_RETRY_SECONDS,
        )

    async def _warn(self, reason: error_pb2.ErrorReason.ValueType, message: str) -> None:
        app_ids = sorted({task.proto.app_id for task in self._tasks.running()})

        async def work(uow: UnitOfWork) -> None:
            for app_id in app_ids:
                warning = event_pb2.WarningDetail(reason=reason, message=message)
                await uow.append(
                    event_pb2.Event(type=event_pb2.EVENT_TYPE_WARNING, app_id=app_id, warning=warning)
                )

        if app_ids:
            await self._database.write(work, name="tasks.spool_guard.SpoolGuard.warn")
