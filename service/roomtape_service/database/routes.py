"""Which webhooks take which events, and the rows that make them go there.

1. A unit of work hands over each event that it appends; for each webhook that takes it a delivery is written in the
   same transaction, so that none is missed and none is sent that did not happen.
2. An application has a `webhooks_version`, another number after each change of its webhooks and 0 without any. The
   statement that gives an event its sequence reads it: an application without webhooks costs nothing more, and what is
   remembered of the others is read again when it has changed, whoever changed it.
3. It is read under the application's lock and compared with what was remembered under a number that is never used
   again, so a change that was rolled back can't leave anything behind.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.tables import webhook_deliveries, webhook_lanes, webhooks
from roomtape_service.events.filter import EventFilter
from roomtape_service.webhooks.formats.format import Format
from roomtape_service.webhooks.formats.table import format_of

__all__ = ["Routes", "Waker"]

Waker = Callable[[Collection[str]], None]
"""Is told of webhooks for which something was queued."""

_PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
_SUFFIX_BYTES = 8

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Route:
    webhook_id: str
    is_enabled: bool
    format: Format
    filter: EventFilter

    def takes(self, event: event_pb2.Event) -> bool:
        return self.format.knows(event.type) and self.filter.takes(event)


_WEBHOOKS = (
    sa.select(webhooks.c.webhook_id, webhooks.c.is_enabled, webhooks.c.format, webhooks.c.filter)
    .where(webhooks.c.app_id == sa.bindparam("of_app_id"), webhooks.c.delete_ns.is_(None))
    .order_by(webhooks.c.create_ns, webhooks.c.webhook_id)
)
_INSERT_DELIVERY = sa.insert(webhook_deliveries)
_INSERT_LANE: Mapping[str, sa.Insert] = {
    "sqlite": sqlite.insert(webhook_lanes).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(webhook_lanes).on_conflict_do_nothing(),
}


class Routes:
    """What one process remembers of the webhooks of all applications, and who waits for deliveries."""

    def __init__(self) -> None:
        self._routes: dict[str, tuple[int, tuple[_Route, ...]]] = {}
        self._wakers: list[Waker] = []

    def subscribe(self, waker: Waker) -> None:
        """Calls `waker` after each commit that queued deliveries or made some due, with their webhooks.

        It must not block; what it raises is logged. A commit whose answer was lost is not told.
        """
        self._wakers.append(waker)

    def unsubscribe(self, waker: Waker) -> None:
        """Calls it no more. Raises ValueError if it was not subscribed."""
        self._wakers.remove(waker)

    async def queue(
        self, connection: AsyncConnection, version: int, event: event_pb2.Event, payload: bytes, now_ns: int
    ) -> Collection[str]:
        """Writes a delivery of `event` for each webhook that takes it, and returns these.

        `version` is the application's `webhooks_version`, read under its lock; `payload` is the serialized event.
        """
        taking = [route for route in await self._of(connection, event.app_id, version) if route.takes(event)]
        if not taking:
            return ()
        event_ns = event.event_time.seconds * NANOSECONDS + event.event_time.nanos
        queued: list[Mapping[str, str | int | bytes]] = [
            {
                "webhook_id": route.webhook_id,
                "sequence": event.sequence,
                # Not the same again where a log was put back to an older state.
                "delivery_id": f"{event.sequence}-{secrets.token_hex(_SUFFIX_BYTES)}",
                "task_id": event.task_id,
                "type": event.type,
                "event_ns": event_ns,
                "state": _PENDING,
                "queue_ns": now_ns,
                "payload": payload,
            }
            for route in taking
        ]
        lanes: list[Mapping[str, str | int | None]] = [
            {
                "webhook_id": route.webhook_id,
                "task_id": event.task_id,
                "next_ns": now_ns if route.is_enabled else None,
            }
            for route in taking
        ]
        await connection.run_sync(_insert, queued, lanes)
        return [route.webhook_id for route in taking if route.is_enabled]

    def wake(self, webhook_ids: Collection[str]) -> None:
        """For units: what they queued for these is durable."""
        for waker in self._wakers:
            try:
                waker(webhook_ids)
            except Exception:
                _log.exception("webhook_waker_failed")

    async def _of(self, connection: AsyncConnection, app_id: str, version: int) -> tuple[_Route, ...]:
        known = self._routes.get(app_id)
        if known is not None and known[0] == version:
            return known[1]
        rows = await connection.execute(_WEBHOOKS, {"of_app_id": app_id})
        routes = tuple(
            _Route(
                row.webhook_id,
                row.is_enabled,
                format_of(webhook_pb2.WebhookFormat.ValueType(row.format)),
                EventFilter.of(event_pb2.EventFilter.FromString(row.filter)),
            )
            for row in rows
        )
        self._routes[app_id] = (version, routes)
        return routes


def _insert(
    connection: sa.Connection,
    queued: Sequence[Mapping[str, str | int | bytes]],
    lanes: Sequence[Mapping[str, str | int | None]],
) -> None:
    """Both in one visit: going over to SQLAlchemy's side and back costs as much as a statement."""
    connection.execute(_INSERT_DELIVERY, queued)
    connection.execute(_INSERT_LANE[connection.dialect.name], lanes)
