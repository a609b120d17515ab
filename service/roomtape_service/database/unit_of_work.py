"""A unit of work: state, its events, what webhooks get of them and the stored reply, all of it or nothing (P1)."""

import json

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.commits import Commits, Ticket
from roomtape_service.database.routes import Routes
from roomtape_service.database.tables import applications, events, tasks
from roomtape_service.errors import Refusal

__all__ = ["UnitOfWork"]

_NEXT_SEQUENCE = (
    update(applications)
    .where(applications.c.app_id == bindparam("of_app_id"))
    .values(last_sequence=applications.c.last_sequence + 1)
    .returning(applications.c.last_sequence, applications.c.webhooks_version)
)
_NEXT_TASK_SEQUENCE = (
    update(tasks)
    .where(tasks.c.task_id == bindparam("of_task_id"), tasks.c.app_id == bindparam("of_app_id"))
    .values(last_task_sequence=tasks.c.last_task_sequence + 1)
    .returning(tasks.c.last_task_sequence, tasks.c.labels)
)
_LOGGED_BEFORE = (
    select(events.c.logged_bytes)
    .where(events.c.app_id == bindparam("app_id"), events.c.sequence == bindparam("before"))
    .scalar_subquery()
)
_INSERT_EVENT = insert(events).values(
    {
        **{column.name: bindparam(column.name) for column in events.columns},
        "logged_bytes": func.coalesce(_LOGGED_BEFORE, 0) + bindparam("bytes"),
    }
)
_NO_LABELS = "{}"
_LOCK_APPLICATION = (
    select(applications.c.app_id).where(applications.c.app_id == bindparam("of_app_id")).with_for_update()
)


class UnitOfWork:
    """What a unit works with while it is open.

    `connection` sees what the unit wrote so far; it must not be committed, rolled back or kept. `now_ns` is
    the unit's one time, UTC nanoseconds.
    """

    def __init__(self, connection: AsyncConnection, now_ns: int, commits: Commits, routes: Routes) -> None:
        self.connection = connection
        self.now_ns = now_ns
        self._commits = commits
        self._routes = routes
        self._woken: set[str] = set()
        self._tickets: dict[str, tuple[Ticket, list[event_pb2.Event]]] = {}

    async def append(self, event: event_pb2.Event) -> event_pb2.Event:
        """Writes an event to its application's log, and returns it with its numbers.

        Sets `sequence`, `task_sequence` and `labels` if it has a `task_id`, `event_time` if it is unset, and the
        `task_sequence` of the task inside a TaskDetail. Raises Refusal APPLICATION_NOT_FOUND, and LookupError for
        a task that the application does not have.
        """
        # In one visit: going over to SQLAlchemy's side and back costs as much as a statement.
        webhooks_version, payload = await self.connection.run_sync(self._append, event)
        if webhooks_version:
            self._woken.update(
                await self._routes.queue(self.connection, webhooks_version, event, payload, self.now_ns)
            )
        # The caller's message is the caller's; listeners get what was stored.
        stored = event_pb2.Event()
        stored.CopyFrom(event)
        self._entry(event.app_id)[1].append(stored)
        return event

    async def lock_application(self, app_id: str) -> None:
        """Makes this unit the only one that changes the application until it ends.

        Nothing to do on SQLite, which has one writer. On PostgreSQL a unit that changes rows before its first
        event should call it first: units that take locks in one order can't stand in each other's way.
        """
        if self.connection.dialect.name != "sqlite":
            await self.connection.execute(_LOCK_APPLICATION, {"of_app_id": app_id})

    def wake(self, webhook_id: str) -> None:
        """Has the webhook's deliveries looked at when the unit is durable: it made some of them due."""
        self._woken.add(webhook_id)

    def committed(self) -> None:
        """For the database: the unit is durable."""
        for ticket, appended in self._tickets.values():
            self._commits.settle(ticket, appended)
        self._tickets.clear()
        if self._woken:
            self._routes.wake(self._woken)

    def rolled_back(self) -> None:
        """For the database: nothing of the unit is left."""
        for ticket, _ in self._tickets.values():
            self._commits.settle(ticket, ())
        self._tickets.clear()

    def _append(self, connection: Connection, event: event_pb2.Event) -> tuple[int, bytes]:
        """Numbers the event and inserts it; the version of its application's webhooks, and the payload."""
        app_id = event.app_id
        row = connection.execute(_NEXT_SEQUENCE, {"of_app_id": app_id}).first()
        if row is None:
            raise Refusal(
                error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND,
                f"There is no application {app_id!r}.",
                metadata={"appId": app_id},
            )
        # From here to the end of the unit nobody else writes to this application's log.
        self._entry(app_id)
        event.sequence = row.last_sequence
        webhooks_version: int = row.webhooks_version
        if event.task_id:
            task = {"of_task_id": event.task_id, "of_app_id": app_id}
            row = connection.execute(_NEXT_TASK_SEQUENCE, task).first()
            if row is None:
                raise LookupError(f"application {app_id!r} has no task {event.task_id!r}")
            event.task_sequence = row.last_task_sequence
            if row.labels != _NO_LABELS:
                event.labels.update(json.loads(row.labels))
            if event.HasField("task"):
                event.task.task.task_sequence = event.task_sequence
        if not event.HasField("event_time"):
            event.event_time.FromNanoseconds(self.now_ns)
        payload = event.SerializeToString()
        connection.execute(
            _INSERT_EVENT,
            {
                "app_id": app_id,
                "sequence": event.sequence,
                "task_id": event.task_id,
                "task_sequence": event.task_sequence,
                "room_id": event.room_id,
                "type": event.type,
                "event_ns": event.event_time.seconds * NANOSECONDS + event.event_time.nanos,
                "payload": payload,
                "before": event.sequence - 1,
                "bytes": len(payload),
            },
        )
        return webhooks_version, payload

    def _entry(self, app_id: str) -> tuple[Ticket, list[event_pb2.Event]]:
        entry = self._tickets.get(app_id)
        if entry is None:
            entry = self._tickets[app_id] = (self._commits.enter(app_id), [])
        return entry
