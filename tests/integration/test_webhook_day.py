"""A day of webhooks whose receivers do what receivers do, on a clock that is moved.

WEBHOOK_DAY_EVENTS says how much happens in it, WEBHOOK_DAY_SEED makes it another one.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.client import WebhookVerifier
from roomtape.v1 import webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database
from roomtape_service.database.tables import webhook_deliveries
from roomtape_service.webhooks.deliveries import Deliveries
from tests.support.certificates import make_certificates
from tests.support.databases import APP, add_application, add_tasks
from tests.support.receiver import Conduct, Receipt, Receiver, receiver
from tests.support.webhooks import KEY, add_webhook, append, delivering, settled, trusting

DAY_SECONDS = 24 * 3600
EVENTS = int(os.environ.get("WEBHOOK_DAY_EVENTS", "160"))
SEED = int(os.environ.get("WEBHOOK_DAY_SEED", "4"))
TASKS = [str(number) for number in range(1, 9)]
RESTARTS = 3
TIMEOUT_SECONDS = 2.0
LONGEST_BURST = 8

OUTAGE = range(6 * 3600, 7 * 3600)
"""When nobody listens where one of the receivers was."""

# What is slow for us is rare, so that the day is short.
CONDUCTS = {
    Conduct.TAKE: 160,
    Conduct.TAKE_204: 20,
    Conduct.CLOSE: 20,
    Conduct.FAIL: 60,
    Conduct.REDIRECT: 24,
    Conduct.RESET: 24,
    Conduct.RESET_WITHIN: 16,
    Conduct.GARBAGE: 16,
    Conduct.TLS: 24,
    Conduct.BUSY: 12,
    Conduct.GONE: 12,
    Conduct.GIGABYTE: 4,
    Conduct.GIGABYTE_500: 4,
    Conduct.HEADERS: 4,
    Conduct.HANG: 1,
    Conduct.SLOW: 1,
}


FIRST = [Conduct.HANG, Conduct.SLOW, Conduct.HEADERS, Conduct.GIGABYTE, Conduct.GIGABYTE_500]
"""How the day begins: what is rare happens at least once."""


def moments(dice: random.Random) -> Iterator[tuple[int, int]]:
    """At which second of the day how many events happen."""
    left = EVENTS
    while left > 0:
        count = min(left, dice.randint(1, LONGEST_BURST))
        left -= count
        yield dice.randrange(DAY_SECONDS), count


async def test_a_day_with_receivers_that_fail_at_random(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    clock = ManualClock()
    database = Database(f"sqlite:///{tmp_path}/day.db", clock)
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, TASKS)
    files = make_certificates(tmp_path, ["127.0.0.1"])
    conducts, weights = list(CONDUCTS), list(CONDUCTS.values())

    first = iter(FIRST)

    def at_random(request: web.Request, body: bytes) -> Conduct:
        return next(first, None) or dice.choices(conducts, weights)[0]

    async with receiver(at_random, tls=(files.certificate, files.key)) as wild, receiver() as absent:
        async with receiver() as steady, AsyncExitStack() as running:
            await add_webhook(database, wild.url, webhook_id="wild", concurrency=4)
            await add_webhook(database, absent.url, webhook_id="absent")
            await add_webhook(database, steady.url, webhook_id="steady")
            day = Day(database, clock, dice, files.authority, absent)
            await day.pass_by(running)
        await check_steady(database, steady)
        for each in (wild, absent, steady):
            check_receipts(each.receipts, day.told)
        assert await day.rows("state") == {webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED}
        # It did misbehave in every way, and nothing led it astray.
        assert {receipt.conduct for receipt in wild.receipts} == set(CONDUCTS)
        assert wild.redirected == 0
    await database.aclose()


class Day:
    """Moves the clock from one thing that happens to the next."""

    def __init__(
        self,
        database: Database,
        clock: ManualClock,
        dice: random.Random,
        authority: Path,
        absent: Receiver,
    ) -> None:
        self.told: dict[str, list[str]] = defaultdict(list)
        self._database = database
        self._clock = clock
        self._dice = dice
        self._authority = authority
        self._absent = absent
        self._began_ns = clock.now_ns()

    async def pass_by(self, stack: AsyncExitStack) -> None:
        """The whole day, and what it takes until the last event has arrived."""
        happens = sorted(moments(self._dice), reverse=True)
        restarts = sorted(self._dice.randrange(DAY_SECONDS) for _ in range(RESTARTS))
        deliveries = await self._start(stack)
        while True:
            next_ns = deliveries.statistics().next_ns
            if not happens and next_ns is None:
                return
            second = min(
                happens[-1][0] if happens else 1 << 40,
                (next_ns - self._began_ns) / NANOSECONDS if next_ns is not None else 1 << 40,
            )
            self._clock.advance(max(0.0, second - self._second))
            while happens and happens[-1][0] <= self._second:
                await self._happen(happens.pop()[1])
            await self._come_and_go()
            if restarts and restarts[0] <= self._second:
                restarts.pop(0)
                await stack.aclose()
                deliveries = await self._start(stack)
            deliveries.wake()
            await settled(deliveries)

    async def rows(self, column: str, webhook_id: str = "") -> set[object]:
        """All values of a column of the deliveries."""

        async def read(connection: AsyncConnection) -> set[object]:
            query = select(webhook_deliveries.c[column])
            if webhook_id:
                query = query.where(webhook_deliveries.c.webhook_id == webhook_id)
            return set(await connection.scalars(query))

        return await self._database.read(read)

    @property
    def _second(self) -> float:
        return (self._clock.now_ns() - self._began_ns) / NANOSECONDS

    async def _start(self, stack: AsyncExitStack) -> Deliveries:
        deliveries = await stack.enter_async_context(
            delivering(
                self._database,
                self._clock,
                seed=self._dice.randrange(1 << 30),
                tls=trusting(self._authority),
                timeout_seconds=TIMEOUT_SECONDS,
            )
        )
        await settled(deliveries)
        return deliveries

    async def _happen(self, count: int) -> None:
        tasks = [self._dice.choice(["", *TASKS]) for _ in range(count)]
        events = []
        for task in tasks:
            events.append((task, f"{len(self.told[task])}"))
            self.told[task].append(events[-1][1])
        await append(self._database, *events)

    async def _come_and_go(self) -> None:
        if int(self._second) in OUTAGE:
            await self._absent.aclose()
        else:
            await self._absent.start_again()


async def check_steady(database: Database, steady: Receiver) -> None:
    """Every event was taken in its first attempt, in the very moment in which it happened."""

    async def read(connection: AsyncConnection) -> Sequence[tuple[int, int]]:
        table = webhook_deliveries.c
        query = select(table.attempts, table.last_attempt_ns - table.queue_ns)
        return [tuple(row) for row in await connection.execute(query.where(table.webhook_id == "steady"))]

    assert set(await database.read(read)) == {(1, 0)}


def check_receipts(receipts: Sequence[Receipt], told: dict[str, list[str]]) -> None:
    """Every event, in order for each task, each signed; the next only after the one before was taken."""
    verifier = WebhookVerifier(KEY, tolerance_seconds=1e9)
    came: dict[str, list[str]] = defaultdict(list)
    taken: dict[str, set[str]] = defaultdict(set)
    for receipt in receipts:
        event = verifier.verify(receipt.body, receipt.headers).event
        if event.warning.reason:
            continue
        number, task = event.warning.message, event.task_id
        if not came[task] or came[task][-1] != number:
            assert int(number) == len(set(came[task])), f"{number} of {task!r} came after {came[task][-3:]}"
            assert int(number) == 0 or str(int(number) - 1) in taken[task]
        came[task].append(number)
        if receipt.conduct.is_taking:
            taken[task].add(number)
    for task, numbers in told.items():
        assert taken[task] == set(numbers)
