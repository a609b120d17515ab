"""Hands committed events to those who listen, each application's in the order of `sequence`."""

from collections import deque
from collections.abc import Callable, Sequence

import structlog

from roomtape.v1 import event_pb2

__all__ = ["Commits", "Listener", "Ticket"]

Listener = Callable[[Sequence[event_pb2.Event]], None]

_log = structlog.get_logger(__name__)


class Ticket:
    """One unit's place in the order of an application's commits."""

    __slots__ = ("app_id", "events", "settled")

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.events: Sequence[event_pb2.Event] = ()
        self.settled = False


class Commits:
    """The order of commits, and the listeners.

    1. A unit enters when the database has given it its first sequence; the row lock behind that makes the order
       of entries the order of commits.
    2. It settles when its commit or rollback is known. On PostgreSQL a later unit's answer may be read first.
    3. Events go out when everything that entered before has settled.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._tickets: dict[str, deque[Ticket]] = {}

    def subscribe(self, listener: Listener) -> None:
        """Calls `listener` after each commit that has events. It must not block; what it raises is logged."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Calls it no more."""
        self._listeners.remove(listener)

    def enter(self, app_id: str) -> Ticket:
        """Takes the next place in the application's order; every ticket must be settled."""
        ticket = Ticket(app_id)
        self._tickets.setdefault(app_id, deque()).append(ticket)
        return ticket

    def settle(self, ticket: Ticket, events: Sequence[event_pb2.Event]) -> None:
        """Says what the unit committed: nothing, if it was rolled back."""
        ticket.events = events
        ticket.settled = True
        waiting = self._tickets[ticket.app_id]
        while waiting and waiting[0].settled:
            self._hand_out(waiting.popleft().events)
        if not waiting:
            del self._tickets[ticket.app_id]

    def _hand_out(self, events: Sequence[event_pb2.Event]) -> None:
        if not events:
            return
        for listener in self._listeners:
            try:
                listener(events)
            except Exception:
                _log.exception("commit_listener_failed", app_id=events[0].app_id, sequence=events[0].sequence)
