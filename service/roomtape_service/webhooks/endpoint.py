"""What one process has in memory of one webhook while something is queued for it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.outbox import Due
from roomtape_service.webhooks.webhook import Webhook

__all__ = ["Endpoint"]

_FAILURES: Final = 5
"""So many in a row are no accident: from then on the receiver gets less at once."""
_FAILING_SHARE: Final = 4

_WARNING_NS: Final = 600 * NANOSECONDS
"""Of a receiver that takes nothing for so long its owner is told."""
_WARNING_INTERVAL_NS: Final = 3600 * NANOSECONDS
"""Not sooner again, whatever comes in between: the warning is an event too, and a receiver that takes it and nothing
else must not bring about the next one."""

_OUTAGE_NS: Final = 60 * NANOSECONDS
"""After so long, all that waits for its next attempt is due as soon as the receiver takes something again."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """One webhook's queue and how its receiver gets on; times in UTC nanoseconds."""

    webhook_id: str
    webhook: Webhook | None = None
    """None before it was read, and when nothing is to be sent to it."""
    ready: deque[Due] = field(default_factory=deque)
    """First deliveries of lanes, of which none is under way."""
    busy: set[str] = field(default_factory=set)
    """Lanes, by task, of which a delivery is ready, under way, or not stored yet."""
    running: int = 0
    """Lanes of which a delivery is under way."""
    long_lanes: set[str] = field(default_factory=set)
    """Lanes in which more waited after a delivery."""
    settled_lanes: set[str] = field(default_factory=set)
    """Lanes of which a delivery was stored since lanes were read last."""
    may_have_due: bool = True
    """Whether lanes may be due that are not in memory."""
    is_changed: bool = True
    """Whether the webhook must be read again."""
    next_ns: int | None = None
    """When the first of the lanes is due that wait for their time."""
    rest_until_ns: int = 0
    """The receiver asked for a rest until then."""
    failures: int = 0
    """Failed attempts in a row, of whichever lanes."""
    failing_since_ns: int | None = None
    """When the first of these was; None when there are none."""
    warned_ns: int | None = None
    """When its owner was told last."""
    is_warned: bool = False
    """Whether its owner was told, and the receiver took nothing since."""

    @property
    def is_failing(self) -> bool:
        """Whether the receiver takes nothing of late."""
        return self.failures >= _FAILURES

    @property
    def limit(self) -> int:
        """How many requests it may get at once."""
        if self.webhook is None:
            return 0
        concurrency = self.webhook.row.concurrency
        return max(1, concurrency // _FAILING_SHARE) if self.is_failing else concurrency

    @property
    def can_start(self) -> bool:
        """Whether one more delivery may go on its way."""
        return bool(self.ready) and self.running < self.limit

    def is_idle(self, now_ns: int) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not (
            self.busy
            or self.running
            or self.may_have_due
            or self.is_changed
            or self.failures
            or self.next_ns is not None
            or self._was_warned(now_ns)
        )

    def is_settled(self, now_ns: int) -> bool:
        """Whether all that is due was tried, and what came of it is stored."""
        is_waiting = self.webhook is None or now_ns < self.rest_until_ns or not self.may_have_due
        return not (self.busy or self.running or self.is_changed) and is_waiting

    def forget_ready(self) -> None:
        """What is not under way is read again."""
        self.busy.difference_update(due.task_id for due in self.ready)
        self.ready.clear()
        self.may_have_due = True

    def take(self, lanes: "list[Due]") -> None:
        """These lanes were read, and are ready."""
        self.long_lanes = {due.task_id for due in lanes if due.task_id in self.settled_lanes}
        self.settled_lanes.clear()
        self.busy.update(due.task_id for due in lanes)
        self.ready.extend(lanes)

    def release(self, task_id: str) -> None:
        """What came of the lane's deliveries is stored; more of them may be due."""
        self.busy.discard(task_id)
        self.settled_lanes.add(task_id)
        self.may_have_due = True

    def rest(self, until_ns: int) -> None:
        """Nothing more goes on its way before then."""
        self.forget_ready()
        self.rest_until_ns = max(self.rest_until_ns, until_ns)
        self.next_ns = self.rest_until_ns

    def succeeded(self, now_ns: int) -> bool:
        """The receiver took something. Returns whether an outage ended by that."""
        was_out = self.failing_since_ns is not None and now_ns - self.failing_since_ns >= _OUTAGE_NS
        is_over = self.is_failing and was_out
        self.failures = 0
        self.failing_since_ns = None
        self.is_warned = False
        self.rest_until_ns = 0
        return is_over

    def failed(self, now_ns: int) -> bool:
        """It took nothing. Returns whether its owner is to be told now."""
        self.failures += 1
        if self.failing_since_ns is None:
            self.failing_since_ns = now_ns
        if not self.is_failing or now_ns - self.failing_since_ns < _WARNING_NS or self._was_warned(now_ns):
            return False
        self.warned_ns = now_ns
        self.is_warned = True
        return True

    def _was_warned(self, now_ns: int) -> bool:
        return self.warned_ns is not None and now_ns - self.warned_ns < _WARNING_INTERVAL_NS
