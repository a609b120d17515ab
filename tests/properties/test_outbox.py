"""What waits for webhooks, against a model of it: whatever happens in whichever order, the rows say the same.

WEBHOOK_STEPS says how many steps each run takes.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, deliveries, events, outbox
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.outbox import Due, Outcome
from roomtape_service.database.tables import webhook_deliveries, webhook_lanes, webhooks
from roomtape_service.database.webhooks import WebhookRow
from roomtape_service.webhooks.retention import WebhookRetention
from tests.support.databases import APP, add_tasks, clock, database, database_url, postgres, warning
from tests.support.webhook_rows import add_webhook, due, stored, webhook

__all__ = ["clock", "database", "database_url", "postgres"]

STEPS = int(os.environ.get("WEBHOOK_STEPS", "80"))
TASKS = ("1", "2", "3", "")
KEEP_SECONDS = 50
KEEP_DELIVERED = 6
PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
DELIVERED = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD


@dataclass
class Row:
    """A delivery as it should be."""

    sequence: int
    task_id: str
    queue_ns: int
    state: int = PENDING
    attempts: int = 0
    end_ns: int = 0


@dataclass
class Hook:
    """A webhook as it should be; `lanes` says when the next of each lane is due, were it enabled."""

    row: WebhookRow
    only_task: str | None
    rows: dict[int, Row] = field(default_factory=dict)
    lanes: dict[str, int] = field(default_factory=dict)

    def pending(self, task_id: str) -> list[int]:
        waiting = [row for row in self.rows.values() if row.state == PENDING and row.task_id == task_id]
        return sorted(row.sequence for row in waiting)

    def due(self, now_ns: int) -> dict[int, int]:
        """The sequences that are due, and since when."""
        if not self.row.is_enabled:
            return {}
        times = {task_id: next_ns for task_id, next_ns in self.lanes.items() if next_ns <= now_ns}
        return {self.pending(task_id)[0]: next_ns for task_id, next_ns in times.items()}

    def drop_empty_lanes(self) -> None:
        self.lanes = {task_id: ns for task_id, ns in self.lanes.items() if self.pending(task_id)}

    def remove(self, sequences: Iterable[int]) -> None:
        for sequence in list(sequences):
            del self.rows[sequence]
        self.drop_empty_lanes()


class Run:
    """Does the same to the database and to the model."""

    def __init__(self, database: Database, clock: ManualClock, random: Random) -> None:
        self.database = database
        self.clock = clock
        self.random = random
        self.hooks: dict[str, Hook] = {}
        self.made = 0
        self.head = 0
        self.compacted = 0
        self.retention = WebhookRetention(
            database, clock, keep_seconds=KEEP_SECONDS, keep_delivered=KEEP_DELIVERED
        )

    async def step(self) -> None:
        """One of the things that happen."""
        steps = {
            self.append: 8,
            self.attempt: 8,
            self.wait: 4,
            self.switch: 1,
            self.resend: 1,
            self.resend_dead: 1,
            self.retain: 1,
            self.make: 1,
            self.delete: 0.3,
        }
        await self.random.choices(list(steps), list(steps.values()))[0]()

    async def check(self) -> None:
        """Raises AssertionError where the rows say something else than the model."""
        now_ns = self.clock.now_ns()
        for webhook_id, hook in self.hooks.items():
            found = {
                row.sequence: (row.state, row.attempts) for row in await stored(self.database, webhook_id)
            }
            assert found == {row.sequence: (row.state, row.attempts) for row in hook.rows.values()}
            assert {each.sequence for each in await due(self.database, webhook_id, now_ns)} == set(
                hook.due(now_ns)
            )
        lanes = {
            (webhook_id, task_id): next_ns if hook.row.is_enabled else None
            for webhook_id, hook in self.hooks.items()
            for task_id, next_ns in hook.lanes.items()
        }
        assert await self.database.read(self._lanes) == lanes
        waiting = {
            webhook_id: hook for webhook_id, hook in self.hooks.items() if hook.row.is_enabled and hook.lanes
        }
        receivers = await self.database.read(outbox.receivers)
        assert {each.webhook_id: each.due_ns for each in receivers} == {
            webhook_id: min(hook.lanes.values()) for webhook_id, hook in waiting.items()
        }

    async def make(self) -> None:
        if len(self.hooks) >= 3:
            return
        self.made += 1
        only_task = self.random.choice((None, None, "1"))
        wanted = event_pb2.EventFilter(task_ids=[only_task] if only_task else [])
        row = await add_webhook(self.database, webhook(f"w{self.made}", wanted=wanted))
        self.hooks[row.webhook_id] = Hook(row, only_task)

    async def delete(self) -> None:
        if hook := self._any():
            await self.database.write(lambda uow: webhook_rows.mark_deleted(uow, hook.row))
            del self.hooks[hook.row.webhook_id]
            await self.retention.tick()
            self._retained()
            assert hook.row.webhook_id not in await self.database.read(self._webhooks)

    async def append(self) -> None:
        task_id = self.random.choice(TASKS)
        await self.database.write(lambda uow: uow.append(warning("x", task_id=task_id)))
        self.head += 1
        for hook in self.hooks.values():
            if hook.only_task in (None, task_id):
                hook.rows[self.head] = Row(self.head, task_id, self.clock.now_ns())
                hook.lanes.setdefault(task_id, self.clock.now_ns())

    async def attempt(self) -> None:
        hook = self._any()
        if hook is None:
            return
        now_ns = self.clock.now_ns()
        limit = self.random.randint(1, 4)
        busy = self.random.sample(TASKS, self.random.choice((0, 0, 1, 2)))
        found = await due(self.database, hook.row.webhook_id, now_ns, limit=limit, busy=busy)
        expected = {
            sequence: since
            for sequence, since in hook.due(now_ns).items()
            if hook.rows[sequence].task_id not in busy
        }
        assert len(found) == min(limit, len(expected))
        assert [expected[each.sequence] for each in found] == sorted(expected.values())[: len(found)]
        outcomes = [self._outcome(hook, each) for each in found]
        await self.database.write(lambda uow: outbox.settle(uow, outcomes), name="test")

    async def wait(self) -> None:
        self.clock.advance(self.random.choice((1, 2, 5, 20)))

    async def switch(self) -> None:
        if hook := self._any():
            row = replace(hook.row, is_enabled=not hook.row.is_enabled)
            hook.row = await self.database.write(
                lambda uow: webhook_rows.change(uow, row, was_enabled=not row.is_enabled)
            )
            if hook.row.is_enabled:
                hook.lanes = dict.fromkeys(hook.lanes, self.clock.now_ns())

    async def resend(self) -> None:
        hook = self._any()
        if hook is None or not hook.rows:
            return
        rows = await stored(self.database, hook.row.webhook_id)
        chosen = self.random.sample(rows, self.random.randint(1, len(rows)))
        ids = [each.delivery_id for each in chosen]
        await self.database.write(lambda uow: deliveries.resend(uow, hook.row, ids))
        self._queued_again(hook, [each.sequence for each in chosen])

    async def resend_dead(self) -> None:
        if hook := self._any():
            limit = self.random.randint(1, 3)
            await self.database.write(lambda uow: deliveries.resend_dead(uow, hook.row, limit))
            dead = sorted(row.sequence for row in hook.rows.values() if row.state == DEAD)
            self._queued_again(hook, dead[:limit])

    async def retain(self) -> None:
        self.compacted = self.random.randint(self.compacted, self.head)
        await self.database.write(lambda uow: events.compact(uow, APP, self.compacted, 10_000))
        await self.retention.tick()
        self._retained()

    def _retained(self) -> None:
        before_ns = self.clock.now_ns() - KEEP_SECONDS * NANOSECONDS
        for hook in self.hooks.values():
            ends = sorted(row.end_ns for row in hook.rows.values() if row.state == DELIVERED)
            # All that were made at one time go together.
            too_many = ends[-KEEP_DELIVERED - 1] if len(ends) > KEEP_DELIVERED else 0
            hook.remove(
                row.sequence
                for row in hook.rows.values()
                if (row.state == DELIVERED and (row.end_ns < before_ns or row.end_ns <= too_many))
                or (row.state == DEAD and row.sequence <= self.compacted)
                or (row.state == PENDING and not hook.row.is_enabled and row.sequence <= self.compacted)
            )

    def _queued_again(self, hook: Hook, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            task_id = hook.rows[sequence].task_id
            hook.rows[sequence] = Row(sequence, task_id, self.clock.now_ns())
            hook.lanes[task_id] = self.clock.now_ns()

    def _outcome(self, hook: Hook, found: Due) -> Outcome:
        now_ns = self.clock.now_ns()
        row = hook.rows[found.sequence]
        assert (found.task_id, found.attempts, found.queue_ns) == (row.task_id, row.attempts, row.queue_ns)
        state = self.random.choice((DELIVERED, DELIVERED, PENDING, DEAD))
        next_ns = now_ns + self.random.choice((0, 1, 7)) * NANOSECONDS
        row.state, row.attempts, row.end_ns = state, row.attempts + 1, now_ns
        hook.lanes[row.task_id] = next_ns if state == PENDING else now_ns
        hook.drop_empty_lanes()
        error = "" if state == DELIVERED else "HTTP 500"
        return Outcome(found, state, now_ns, error=error, next_ns=next_ns if state == PENDING else 0)

    def _any(self) -> Hook | None:
        return self.random.choice(list(self.hooks.values())) if self.hooks else None

    async def _lanes(self, connection: AsyncConnection) -> dict[tuple[str, str], int | None]:
        rows = await connection.execute(sa.select(webhook_lanes))
        return {(row.webhook_id, row.task_id): row.next_ns for row in rows}

    async def _webhooks(self, connection: AsyncConnection) -> set[str]:
        kept = await connection.scalars(sa.select(webhooks.c.webhook_id))
        queued = await connection.scalars(sa.select(webhook_deliveries.c.webhook_id))
        return {*kept, *queued}


@pytest.mark.parametrize("seed", range(2))
async def test_the_outbox_is_what_its_model_says(database: Database, clock: ManualClock, seed: int) -> None:
    await add_tasks(database, [task_id for task_id in TASKS if task_id])
    run = Run(database, clock, Random(seed))
    for _ in range(STEPS):
        await run.step()
        # Two things that happen at one time can't be told apart by their times.
        clock.advance(0.001)
        await run.check()
