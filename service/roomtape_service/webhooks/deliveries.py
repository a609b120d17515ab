"""Sends what is queued for webhooks (P5).

1. What is to be sent stands in the database alone, since the transaction of its event; so does what came of it.
2. A webhook has lanes, one for each task. Of a lane one delivery is under way at a time, and the next follows when the
   receiver took it or it was given up. The receiver's answer comes before our commit: after a crash in between it is
   sent again.
3. A webhook has so many lanes under way at once as it says, and a quarter of that while its receiver takes nothing.
   All together have a limit too, of which receivers that take nothing get half: who hangs holds up nobody else.
4. Commits wake it. It looks by itself when a time has come, and now and then for what others put into the database.
5. Lanes are read some at a time, so that a long queue costs no memory; what changes of a webhook counts from the next
   attempt on.
"""

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import outbox
from roomtape_service.database.database import Database
from roomtape_service.database.outbox import Due
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.webhooks.attempt import Attempt, Attempts
from roomtape_service.webhooks.endpoint import Endpoint
from roomtape_service.webhooks.results import Results
from roomtape_service.webhooks.sender import Sender
from roomtape_service.webhooks.warning import ReceiverWarning
from roomtape_service.webhooks.webhook import Webhook, read_webhook

__all__ = ["LONGEST_END_SECONDS", "Deliveries", "DeliveryStatistics"]

# Wakes come from this process; what others put into the database is found by looking.
_LOOK_SECONDS: Final = 10.0
_READY_LANES: Final = 64
"""Read at once."""
_BUSY_LANES: Final = 1024
"""Of a webhook in memory at most; results that wait for a slow disk hold up new deliveries."""
_FOLLOWING: Final = 31
"""Deliveries of a long lane that are read ahead of their turn."""
_PARALLEL_READS: Final = 2
"""Hundreds of lanes under way must not take the database's connections from callers."""
LONGEST_END_SECONDS: Final = 10.0
"""How long the end may wait for attempts that are under way."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """What happened since the start, and how it stands."""

    delivered: int
    failed_attempts: int
    dead: int
    under_way: int
    unstored: int
    """Lanes of which something is ready, under way or waits for its commit."""
    failing: int
    """Webhooks whose receivers take nothing."""
    is_settled: bool
    """Whether nothing is due that was not tried, and all that came of it is stored."""
    next_ns: int | None
    """When the first delivery is due that waits for its time; UTC nanoseconds."""


class Deliveries:
    """Sends until it is closed. `run` reads lanes and starts deliveries; each lane under way has a task of its own."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        secret_box: SecretBox,
        clock: Clock,
        *,
        parallel: int,
        timeout_seconds: float,
        randomness: random.Random | None = None,
        end_seconds: float = LONGEST_END_SECONDS,
    ) -> None:
        """`parallel` is how many requests are under way at once to all receivers together, `timeout_seconds` how long
        an attempt may take where retries are ours.
        """
        self._database = database
        self._sender = sender
        self._secret_box = secret_box
        self._clock = clock
        self._end_seconds = end_seconds
        self._results = Results(database)
        self._attempts = Attempts(
            database, sender, clock, randomness or random.Random(), timeout_seconds=timeout_seconds
        )
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._parallel = parallel
        self._endpoints: dict[str, Endpoint] = {}
        self._waiting: dict[str, Endpoint] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._running = 0
        self._running_failing = 0
        self._warnings: list[ReceiverWarning] = []
        self._recovered: list[tuple[str, str]] = []
        self._look_ns = 0
        self._wake = asyncio.Event()
        self._is_looking = True
        self._is_closing = False
        self._closing: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._delivered = self._failed = self._dead = 0

    async def run(self) -> None:
        """Sends what is due until `aclose`; returns then. What is under way goes on when this is cancelled."""
        self._runner = asyncio.current_task()
        await self._sender.start()
        self._results.start()
        self._database.subscribe_deliveries(self.wake)
        try:
            while not self._is_closing:
                self._wake.clear()
                self._is_looking = True
                try:
                    seconds = await self._look()
                except Exception:
                    # Nobody else sends: whatever it is, the next look may fare better.
                    _log.exception("webhooks_not_read")
                    seconds = _LOOK_SECONDS
                self._is_looking = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            self._database.unsubscribe_deliveries(self.wake)

    def wake(self, webhook_ids: Collection[str] = ()) -> None:
        """Something was queued for these webhooks, or they were changed; or the clock was."""
        for webhook_id in webhook_ids:
            endpoint = self._endpoint(webhook_id)
            endpoint.may_have_due = True
            endpoint.is_changed = True
        self._wake.set()

    def statistics(self) -> DeliveryStatistics:
        """A snapshot."""
        now_ns = self._clock.now_ns()
        times = [each.next_ns for each in self._endpoints.values() if each.next_ns is not None]
        return DeliveryStatistics(
            delivered=self._delivered,
            failed_attempts=self._failed,
            dead=self._dead,
            under_way=self._running,
            unstored=sum(len(each.busy) for each in self._endpoints.values()),
            failing=sum(each.is_failing for each in self._endpoints.values()),
            is_settled=not self._is_looking
            and not self._wake.is_set()
            and all(each.is_settled(now_ns) for each in self._endpoints.values()),
            next_ns=min(times, default=None),
        )

    async def aclose(self) -> None:
        """Starts nothing more, waits a while for answers, and stores them. Idempotent.

        What had no answer is sent after the next start.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._runner is not None:
            await asyncio.wait((self._runner,))
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=self._end_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._results.aclose()
        await self._sender.aclose()

    def _endpoint(self, webhook_id: str) -> Endpoint:
        endpoint = self._endpoints.get(webhook_id)
        if endpoint is None:
            endpoint = self._endpoints[webhook_id] = Endpoint(webhook_id)
        return endpoint

    async def _look(self) -> float:
        """Reads what is due, and starts it. Returns after how many seconds to look again."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._look_ns:
            await self._find(now_ns)
        await self._tell()
        await self._hasten()
        next_ns = self._look_ns
        for endpoint in list(self._endpoints.values()):
            if self._is_closing:
                break
            try:
                await self._read(endpoint)
            except Exception:
                # One that can't be read is no reason to leave the others alone.
                _log.exception("webhook_not_read", webhook_id=endpoint.webhook_id)
                endpoint.forget_ready()
                endpoint.is_changed = True
            self._offer(endpoint)
            if endpoint.is_idle(now_ns):
                del self._endpoints[endpoint.webhook_id]
            elif endpoint.next_ns is not None:
                next_ns = min(next_ns, max(endpoint.next_ns, endpoint.rest_until_ns))
        self._fill()
        return max(0.0, (next_ns - self._clock.now_ns()) / NANOSECONDS)

    async def _find(self, now_ns: int) -> None:
        """Finds all webhooks for which something is queued."""
        for found in await self._database.scan(outbox.receivers):
            endpoint = self._endpoint(found.webhook_id)
            endpoint.may_have_due = True
            endpoint.is_changed = True
        self._look_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)

    async def _read(self, endpoint: Endpoint) -> None:
        """Reads the webhook if it may have changed, and lanes that are due if there is room for them."""
        now_ns = self._clock.now_ns()
        if endpoint.next_ns is not None and endpoint.next_ns <= now_ns:
            endpoint.next_ns = None
            endpoint.may_have_due = True
        if endpoint.is_changed:
            endpoint.is_changed = False
            await self._read_webhook(endpoint, now_ns)
        if endpoint.webhook is None:
            endpoint.may_have_due = False
        if now_ns < endpoint.rest_until_ns:
            return
        if (
            endpoint.may_have_due
            and len(endpoint.ready) < endpoint.limit
            and len(endpoint.busy) < _BUSY_LANES
        ):
            await self._read_lanes(endpoint, now_ns)

    async def _read_webhook(self, endpoint: Endpoint, now_ns: int) -> None:
        async def read(connection: AsyncConnection) -> Webhook | None:
            return await read_webhook(
                connection, endpoint.webhook_id, self._secret_box, now_ns, known=endpoint.webhook
            )

        webhook = await self._database.read(read)
        if webhook is None:
            # It is gone, or disabled: nothing of it is due until it is changed again.
            endpoint.forget_ready()
            endpoint.next_ns = None
            endpoint.failures = 0
        endpoint.webhook = webhook

    async def _read_lanes(self, endpoint: Endpoint, now_ns: int) -> None:
        endpoint.may_have_due = False

        async def read(connection: AsyncConnection) -> tuple[Sequence[Due], int | None]:
            lanes = await outbox.due(
                connection, endpoint.webhook_id, now_ns, _READY_LANES, busy=frozenset(endpoint.busy)
            )
            return lanes, await outbox.next_ns(connection, endpoint.webhook_id, now_ns)

        lanes, endpoint.next_ns = await self._database.read(read)
        endpoint.may_have_due |= len(lanes) == _READY_LANES
        endpoint.take([due for due in lanes if due.task_id not in endpoint.busy])

    def _offer(self, endpoint: Endpoint) -> None:
        if endpoint.can_start:
            self._waiting.setdefault(endpoint.webhook_id, endpoint)

    def _fill(self) -> None:
        """Starts as much as may be under way, one webhook after the other."""
        held = {}
        while self._waiting and self._running < self._parallel and not self._is_closing:
            endpoint = self._waiting.pop(next(iter(self._waiting)))
            if endpoint.is_failing and self._running_failing >= max(1, self._parallel // 2):
                held[endpoint.webhook_id] = endpoint
            elif endpoint.can_start:
                self._start(endpoint)
                self._offer(endpoint)
        self._waiting |= held

    def _start(self, endpoint: Endpoint) -> None:
        due = endpoint.ready.popleft()
        was_failing = endpoint.is_failing
        endpoint.running += 1
        self._running += 1
        self._running_failing += was_failing
        task = asyncio.create_task(self._send_lane(endpoint, due), name=f"webhook-{endpoint.webhook_id}")
        self._lanes.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._lanes.discard(task)
            endpoint.running -= 1
            self._running -= 1
            self._running_failing -= was_failing
            if not task.cancelled() and (error := task.exception()):
                _log.error("webhook_lane_failed", webhook_id=endpoint.webhook_id, exc_info=error)
                # Whatever it was, it is not tried again before the next look.
                endpoint.busy.discard(due.task_id)
            self._offer(endpoint)
            self._fill()
            if endpoint.may_have_due and len(endpoint.ready) < endpoint.limit:
                self._wake.set()

        task.add_done_callback(done)

    async def _send_lane(self, endpoint: Endpoint, due: Due) -> None:
        """Sends a delivery, and those that wait behind it, for as long as the receiver takes them."""
        queue = deque((due,))
        if due.task_id in endpoint.long_lanes:
            queue.extend(await self._following(due))
        while queue and (webhook := endpoint.webhook) is not None:
            attempt = await self._attempts.make(webhook, queue.popleft())
            self._count(endpoint, webhook, attempt)
            goes_on = (attempt.is_taken or attempt.is_dead) and bool(queue) and self._goes_on(endpoint)
            release = None if goes_on else partial(self._release, endpoint, due.task_id)
            self._results.put(attempt.outcome, release)
            if not goes_on:
                return
        # The webhook was disabled or deleted meanwhile.
        endpoint.busy.discard(due.task_id)

    async def _following(self, due: Due) -> Sequence[Due]:
        async def read(connection: AsyncConnection) -> Sequence[Due]:
            return await outbox.following(connection, due.webhook_id, due.task_id, due.sequence, _FOLLOWING)

        async with self._reads:
            return await self._database.read(read)

    def _goes_on(self, endpoint: Endpoint) -> bool:
        return not self._is_closing and endpoint.webhook is not None and endpoint.running <= endpoint.limit

    def _release(self, endpoint: Endpoint, task_id: str) -> None:
        endpoint.release(task_id)
        self._wake.set()

    def _count(self, endpoint: Endpoint, webhook: Webhook, attempt: Attempt) -> None:
        now_ns = self._clock.now_ns()
        due = attempt.outcome.delivery
        if attempt.is_taken:
            self._delivered += 1
            if endpoint.is_warned:
                _log.info("webhook_recovered", app_id=due.app_id, webhook_id=due.webhook_id)
            if endpoint.succeeded(now_ns) and webhook.schedule.is_ours:
                self._recovered.append((due.app_id, due.webhook_id))
                self._wake.set()
            return
        self._failed += 1
        cause = attempt.answer.cause
        tell = _log.warning if attempt.is_dead else _log.debug
        tell(
            "webhook_delivery_dead" if attempt.is_dead else "webhook_attempt_failed",
            app_id=due.app_id,
            webhook_id=due.webhook_id,
            delivery_id=due.delivery_id,
            attempts=due.attempts + 1,
            cause=cause,
        )
        self._dead += attempt.is_dead
        if endpoint.failed(now_ns):
            assert endpoint.failing_since_ns is not None
            self._warnings.append(
                ReceiverWarning(
                    due.app_id, due.webhook_id, endpoint.failing_since_ns, endpoint.failures, cause
                )
            )
            self._wake.set()
        if webhook.schedule.is_ours and attempt.answer.rest_seconds > 0:
            rest_seconds = min(attempt.answer.rest_seconds, webhook.schedule.longest_wait_seconds)
            endpoint.rest(now_ns + round(rest_seconds * NANOSECONDS))

    async def _tell(self) -> None:
        """Warns the owners of webhooks whose receivers take nothing for long."""
        if not self._warnings:
            return
        warnings, self._warnings = self._warnings, []

        async def warn(uow: UnitOfWork) -> None:
            for warning in warnings:
                await uow.append(warning.event())

        for warning in warnings:
            _log.warning(
                "webhook_failing",
                app_id=warning.app_id,
                webhook_id=warning.webhook_id,
                failures=warning.failures,
                cause=warning.cause,
            )
        await self._database.write(warn)

    async def _hasten(self) -> None:
        """What waits for its next attempt is due, where the receiver takes something again after an outage."""
        if not self._recovered:
            return
        recovered, self._recovered = self._recovered, []

        async def hasten(uow: UnitOfWork) -> None:
            for app_id, webhook_id in sorted(recovered):
                await outbox.hasten(uow, app_id, webhook_id)

        await self._database.write(hasten)
        for _, webhook_id in recovered:
            self._endpoint(webhook_id).may_have_due = True
