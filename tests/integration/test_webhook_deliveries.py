"""What is queued for webhooks is sent, in order for each task, until it was taken or is given up."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from roomtape.client import verify_webhook
from roomtape.v1 import error_pb2, event_pb2, webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.outbox import Due
from roomtape_service.database.webhooks import WebhookRow
from roomtape_service.webhooks.attempt import Attempts
from roomtape_service.webhooks.deliveries import Deliveries
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, Request, SigningKey
from roomtape_service.webhooks.formats.roomtape import RoomtapeFormat
from roomtape_service.webhooks.schedule import OURS
from roomtape_service.webhooks.sender import Sender
from roomtape_service.webhooks.webhook import Webhook
from tests.support.databases import APP, add_application, add_tasks, stored_events
from tests.support.receiver import Conduct, Receipt, receiver
from tests.support.waiting import eventually
from tests.support.webhooks import (
    KEY,
    LOOPBACK,
    add_key,
    add_webhook,
    append,
    delivering,
    settled,
    states,
    webhook_service,
)

DELIVERED = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD
OTHER_KEY = "whsec_" + "QUJD" * 8
HANGING_SECONDS = 0.3
DAY_SECONDS = 24 * 3600
LONG_SECONDS = 1800


def texts(receipts: Sequence[Receipt]) -> dict[str, list[str]]:
    """What events said, by task."""
    said = defaultdict(list)
    for receipt in receipts:
        said[task_of(receipt)].append(text_of(receipt))
    return said


def event_of(receipt: Receipt) -> event_pb2.Event:
    return verify_webhook(receipt.body, receipt.headers, KEY, tolerance_seconds=1e9)


def text_of(receipt: Receipt) -> str:
    return event_of(receipt).warning.message


def task_of(receipt: Receipt) -> str:
    return event_of(receipt).task_id


async def later(deliveries: Deliveries, clock: ManualClock, seconds: float) -> None:
    """Time passes, and all that became due was tried."""
    clock.advance(seconds)
    deliveries.wake()
    await settled(deliveries)


async def change(database: Database, row: WebhookRow, changed: WebhookRow) -> WebhookRow:
    """Changes a webhook."""

    async def work(uow: UnitOfWork) -> WebhookRow:
        return await webhook_rows.change(uow, changed, was_enabled=row.is_enabled)

    return await database.write(work)


async def test_events_arrive_in_the_order_of_their_tasks(database: Database, clock: ManualClock) -> None:
    await add_tasks(database, ["1", "2", "3"])
    async with receiver() as running, delivering(database, clock) as deliveries:
        await add_webhook(database, running.url)
        for number in range(40):
            await append(database, *((task, f"{task or 'room'} {number}") for task in ("1", "2", "3", "")))
        await settled(deliveries)
        said = texts(running.receipts)
        for task in ("1", "2", "3", ""):
            assert said[task] == [f"{task or 'room'} {number}" for number in range(40)]
        assert {(state, attempts) for _, state, attempts in await states(database)} == {(DELIVERED, 1)}
        assert deliveries.statistics().delivered == 160


async def test_what_was_not_taken_comes_again_before_what_follows_it(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1"])
    answers = iter([Conduct.FAIL, Conduct.REDIRECT, Conduct.RESET])
    async with receiver(lambda request, body: next(answers, Conduct.TAKE)) as running:
        await add_webhook(database, running.url)
        async with delivering(database, clock) as deliveries:
            await append(database, ("1", "a"), ("1", "b"))
            await settled(deliveries)
            for tried in (2, 3, 5):
                assert len(running.receipts) < tried
                await later(deliveries, clock, 4.0)
                assert len(running.receipts) == tried
            assert texts(running.receipts)["1"] == ["a", "a", "a", "a", "b"]
            ids = [receipt.headers["webhook-id"] for receipt in running.receipts]
            assert len(set(ids)) == 2
            assert [attempts for _, _, attempts in await states(database)] == [4, 1]
            assert running.redirected == 0


async def test_one_event_that_is_never_taken_holds_up_its_task_alone_and_dies_after_a_day(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1", "2"])

    def conduct(request: web.Request, body: bytes) -> Conduct:
        return Conduct.FAIL if b"poison" in body else Conduct.TAKE

    async with receiver(conduct) as running, delivering(database, clock) as deliveries:
        row = await add_webhook(database, running.url)
        await append(database, ("1", "poison"), ("1", "after"), ("2", "other"))
        await settled(deliveries)
        assert texts(running.taken) == {"2": ["other"]}
        # Longer than it waits for an attempt, so each of these is one.
        for _ in range(DAY_SECONDS // LONG_SECONDS):
            assert "1" not in texts(running.taken)
            await later(deliveries, clock, LONG_SECONDS)
        assert deliveries.statistics().next_ns is None
        said = texts(running.taken)
        assert (said["2"], said["1"]) == (["other"], ["after"])
        # Those are told of it, but not for each attempt.
        assert len(said[""]) <= 24
        (dead, *others) = await states(database)
        assert dead[1] == DEAD
        # And once more whenever the receiver took a warning about itself.
        assert 0 <= dead[2] - DAY_SECONDS // LONG_SECONDS - 1 <= 24
        assert {state for _, state, _ in others} == {DELIVERED}

        running.conduct = lambda request, body: Conduct.TAKE

        async with webhook_service(database, clock) as webhooks:
            request = webhook_pb2.ListWebhookDeliveriesRequest(app_id=APP, webhook_id=row.webhook_id)
            (listed,) = (await webhooks.ListWebhookDeliveries(request)).deliveries
            assert (listed.last_status_code, listed.last_error) == (500, "HTTP 500: on fire")
            again = webhook_pb2.ResendWebhookDeliveriesRequest(app_id=APP, webhook_id=row.webhook_id)
            assert (await webhooks.ResendWebhookDeliveries(again)).count == 1
        await settled(deliveries)
        assert texts(running.taken)["1"] == ["after", "poison"]
        assert (await states(database))[0][1:] == (DELIVERED, 1)


async def test_receivers_that_hang_hold_up_nobody_else(database: Database, clock: ManualClock) -> None:
    tasks = [str(number) for number in range(1, 41)]
    await add_tasks(database, tasks)
    async with (
        receiver(lambda request, body: Conduct.HANG) as hanging,
        receiver() as running,
        delivering(database, clock, parallel=8, timeout_seconds=HANGING_SECONDS) as deliveries,
    ):
        for number in range(4):
            await add_webhook(database, hanging.url, webhook_id=f"hanging-{number}", concurrency=2)
        # They fill all that may be under way, until it is known that they hang.
        await append(database, *((task, "before") for task in tasks))
        await eventually(lambda: hanging.under_way == 8, "all hang")
        await eventually(lambda: deliveries.statistics().failing == 4, "that is known")
        await eventually(lambda: hanging.under_way <= 4, "half is for the others")
        await add_webhook(database, running.url)
        await append(database, *((task, "after") for task in tasks))
        await eventually(lambda: len(running.taken) == len(tasks), "the others get theirs")
        assert 0 < hanging.under_way <= 4
        assert len(hanging.receipts) < 4 * len(tasks)
        hanging.conduct = lambda request, body: Conduct.TAKE


async def test_no_receiver_gets_more_at_once_than_it_wants(database: Database, clock: ManualClock) -> None:
    tasks = [str(number) for number in range(1, 41)]
    await add_tasks(database, tasks)
    async with (
        receiver(lambda request, body: Conduct.SLOW) as running,
        delivering(database, clock, timeout_seconds=HANGING_SECONDS) as deliveries,
    ):
        await add_webhook(database, running.url, concurrency=3)
        await append(database, *((task, "x") for task in tasks))
        await eventually(lambda: len(running.receipts) >= 6, "two rounds were tried")
        assert running.most_under_way <= 4
        running.conduct = lambda request, body: Conduct.TAKE
        await settled(deliveries)
        await later(deliveries, clock, 10)
        assert len(running.taken) == len(tasks)


async def test_a_disabled_webhook_waits_and_a_deleted_one_is_over(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1"])
    async with receiver() as running, delivering(database, clock) as deliveries:
        row = await add_webhook(database, running.url)
        row = await change(database, row, replace(row, is_enabled=False))
        await append(database, ("1", "a"), ("1", "b"))
        await later(deliveries, clock, 20)
        assert running.receipts == []
        row = await change(database, row, replace(row, is_enabled=True))
        await settled(deliveries)
        assert texts(running.receipts) == {"1": ["a", "b"]}

        running.conduct = lambda request, body: Conduct.FAIL
        await append(database, ("1", "c"))
        await settled(deliveries)

        async def delete(uow: UnitOfWork) -> None:
            await webhook_rows.mark_deleted(uow, row)

        await database.write(delete)
        tried = len(running.receipts)
        await later(deliveries, clock, 20)
        assert len(running.receipts) == tried


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_what_is_under_way_when_a_webhook_ends_harms_nothing(
    database: Database, clock: ManualClock, is_deleted: bool
) -> None:
    await add_tasks(database, ["1"])
    async with receiver(lambda request, body: Conduct.HANG) as running:
        row = await add_webhook(database, running.url)
        async with delivering(database, clock) as deliveries:
            await append(database, ("1", "a"), ("1", "b"))
            await eventually(lambda: running.under_way == 1, "it is under way")

            async def delete(uow: UnitOfWork) -> None:
                await webhook_rows.mark_deleted(uow, row)

            if is_deleted:
                await database.write(delete)
            else:
                row = await change(database, row, replace(row, is_enabled=False))
            running.release()
            await settled(deliveries)
            running.conduct = lambda request, body: Conduct.TAKE
            await later(deliveries, clock, 20)
            assert len(running.receipts) == 1
            if not is_deleted:
                await change(database, row, replace(row, is_enabled=True))
                await settled(deliveries)
                assert texts(running.taken) == {"1": ["a", "b"]}


async def test_a_new_url_and_a_new_key_count_from_the_next_attempt_on(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1"])
    async with receiver(lambda request, body: Conduct.FAIL) as old, receiver() as new:
        row = await add_webhook(database, old.url)
        async with delivering(database, clock) as deliveries:
            await append(database, ("1", "a"))
            await settled(deliveries)
            assert "webhook-signature" in old.receipts[0].headers
            row = await add_key(database, row, OTHER_KEY, 2, 3600 * NANOSECONDS)
            row = await change(database, row, replace(row, url=new.url))
            await later(deliveries, clock, 10)
            (receipt,) = new.receipts
            # In the overlap both sign.
            for key in (KEY, OTHER_KEY):
                verify_webhook(receipt.body, receipt.headers, key, tolerance_seconds=1e9)
            await later(deliveries, clock, 3600)
            await append(database, ("1", "b"))
            await settled(deliveries)
            receipt = new.receipts[-1]
            verify_webhook(receipt.body, receipt.headers, OTHER_KEY, tolerance_seconds=1e9)
            assert receipt.headers["webhook-signature"].count("v1,") == 1


async def test_the_end_waits_for_answers_and_the_next_start_goes_on(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1", "2"])
    async with receiver(lambda request, body: Conduct.HANG) as running:
        await add_webhook(database, running.url)
        async with delivering(database, clock, end_seconds=20.0) as deliveries:
            await append(database, ("1", "a"), ("1", "b"), ("2", "c"))
            await eventually(lambda: running.under_way == 2, "two are under way")
            closing = asyncio.create_task(deliveries.aclose())
            await eventually(lambda: deliveries.statistics().under_way == 2, "it waits")
            running.release()
            await closing
        assert [attempts for _, _, attempts in await states(database)] == [1, 0, 1]
        running.conduct = lambda request, body: Conduct.TAKE
        clock.advance(2)
        async with delivering(database, clock) as deliveries:
            await settled(deliveries)
            assert texts(running.taken) == {"1": ["a", "b"], "2": ["c"]}


async def test_the_end_waits_no_longer_than_it_may_and_loses_nothing(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1"])
    async with receiver(lambda request, body: Conduct.HANG) as running:
        await add_webhook(database, running.url)
        async with delivering(database, clock, end_seconds=0.05):
            await append(database, ("1", "a"))
            await eventually(lambda: running.under_way == 1, "it is under way")
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert [attempts for _, _, attempts in await states(database)] == [0]
        running.conduct = lambda request, body: Conduct.TAKE
        async with delivering(database, clock) as deliveries:
            await settled(deliveries)
        assert texts(running.taken) == {"1": ["a"]}


async def test_a_receiver_that_asks_for_a_rest_gets_it(database: Database, clock: ManualClock) -> None:
    tasks = [str(number) for number in range(1, 21)]
    await add_tasks(database, tasks)
    answers = iter([Conduct.BUSY])
    async with (
        receiver(lambda request, body: next(answers, Conduct.TAKE)) as running,
        delivering(database, clock) as deliveries,
    ):
        await add_webhook(database, running.url, concurrency=1)
        await append(database, *((task, "x") for task in tasks))
        await settled(deliveries)
        assert len(running.receipts) == 1
        await later(deliveries, clock, 1.5)
        assert len(running.receipts) == 1
        await later(deliveries, clock, 1.0)
        assert len(running.taken) == len(tasks)


async def test_an_outage_is_told_and_when_it_is_over_everything_comes_at_once(
    database: Database, clock: ManualClock
) -> None:
    tasks = [str(number) for number in range(1, 11)]
    await add_tasks(database, tasks)
    async with (
        receiver(lambda request, body: Conduct.FAIL) as running,
        delivering(database, clock) as sending,
    ):
        await add_webhook(database, running.url)
        await append(database, *((task, "x") for task in tasks))
        with capture_logs() as lines:
            for _ in range(16):
                await later(sending, clock, 300)
            assert sending.statistics().failing == 1
            running.conduct = lambda request, body: Conduct.TAKE
            while not running.taken:
                await later(sending, clock, 60)
        # The first that was taken brought the others, the warnings among them.
        assert set(texts(running.taken)) == {*tasks, ""}
        warnings = [event for event in await stored_events(database) if event.warning.reason]
        assert {event.warning.reason for event in warnings} == {error_pb2.ERROR_REASON_WEBHOOK_FAILING}
        assert len(warnings) == 2
        assert "hook" in warnings[0].warning.message
        assert "HTTP 500" in warnings[0].warning.message
        assert "on fire" not in warnings[0].warning.message
        told = Counter(line["event"] for line in lines)
        assert told["webhook_failing"] == 2
        assert told["webhook_recovered"] == 1
        assert KEY not in str(lines)
        assert sending.statistics().failing == 0


# SQLite's file belongs to one process.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_deliveries_of_another_process_are_found_by_looking(
    database_url: str, clock: ManualClock
) -> None:
    ours, other = Database(database_url, clock), Database(database_url, clock)
    await ours.open()
    await other.open()
    await add_application(ours, APP)
    await add_tasks(ours, ["1"])
    async with receiver() as running, delivering(ours, clock) as deliveries:
        await add_webhook(ours, running.url)
        await settled(deliveries)
        await append(other, ("1", "a"))
        await later(deliveries, clock, 11)
        assert texts(running.taken) == {"1": ["a"]}
    await ours.aclose()
    await other.aclose()


class InThree(RoomtapeFormat):
    """Tells of each event in three requests."""

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        (request,) = super().requests(event, context, keys, delivery)
        return [Request({**request.headers, "part": str(part)}, request.body) for part in range(3)]


async def test_of_several_requests_only_those_are_sent_again_that_were_not_taken(
    database: Database, clock: ManualClock
) -> None:
    answers = iter([Conduct.TAKE, Conduct.FAIL])
    sender = Sender(LOOPBACK, clock)
    await sender.start()
    async with receiver(lambda request, body: next(answers, Conduct.TAKE)) as running:
        row = await add_webhook(database, running.url)
        webhook = Webhook(row, InThree(), OURS, [(SigningKey(KEY), None)])
        attempts = Attempts(database, sender, clock, random.Random(1), timeout_seconds=5)
        due = Due(APP, "hook", "1-a", 1, "", event_pb2.EVENT_TYPE_WARNING, 0, 0, 0, clock.now_ns(), b"")
        first = await attempts.make(webhook, due)
        assert not first.is_taken
        assert first.outcome.requests_taken == 1
        second = await attempts.make(webhook, replace(due, requests_taken=first.outcome.requests_taken))
        assert second.is_taken
        assert [receipt.headers["part"] for receipt in running.receipts] == ["0", "1", "1", "2"]
    await sender.aclose()


async def test_a_webhook_whose_key_can_t_be_read_fails_without_a_request(
    database: Database, clock: ManualClock
) -> None:
    await add_tasks(database, ["1"])
    async with receiver() as running, delivering(database, clock) as deliveries:
        with capture_logs() as lines:
            row = await add_webhook(database, running.url, key="")
            await append(database, ("1", "a"))
            await settled(deliveries)
        assert running.receipts == []
        assert any(line["event"] == "webhook_not_formed" for line in lines)
        await add_key(database, row, KEY, 2, 0)
        await later(deliveries, clock, 2)
        assert texts(running.taken) == {"1": ["a"]}
