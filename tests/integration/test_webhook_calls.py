"""WebhookService over a real channel, on both databases."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database
from roomtape_service.database.tables import requests, webhook_keys
from tests.support.databases import (
    APP,
    add_application,
    add_tasks,
    clock,
    database,
    database_url,
    postgres,
    warning,
)
from tests.support.webhook_calls import LIMIT, URL, WebhookCalls, refused, webhook_calls
from tests.support.webhook_rows import due, settle

__all__ = ["clock", "database", "database_url", "postgres"]

_KEY = "whsec_" + base64.b64encode(bytes(range(24))).decode()
_PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
_DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD
_HOUR_NS = 3600 * NANOSECONDS


async def append(database: Database, text: str, task_id: str = "") -> None:
    await database.write(lambda uow: uow.append(warning(text, task_id=task_id)))


@pytest.fixture
async def calls(database: Database, tmp_path: Path, clock: ManualClock) -> AsyncIterator[WebhookCalls]:
    async with webhook_calls(database, tmp_path, clock) as running:
        yield running


async def test_what_is_created_has_defaults_and_can_be_read(calls: WebhookCalls, clock: ManualClock) -> None:
    created = await calls.create()
    webhook = created.webhook
    assert webhook.format == webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE
    assert webhook.retry == webhook_pb2.WEBHOOK_RETRY_ROOMTAPE
    assert (webhook.concurrency, webhook.enabled, webhook.url) == (8, True, URL)
    assert webhook.create_time.ToNanoseconds() == webhook.update_time.ToNanoseconds() == clock.now_ns()
    assert [key.HasField("expire_time") for key in webhook.keys] == [False]
    assert webhook.status == webhook_pb2.WebhookStatus()
    assert created.key.value.startswith("whsec_")
    assert await calls.signing_keys(webhook.webhook_id) == [created.key.value]
    assert await calls.get(webhook.webhook_id) == webhook
    assert (await calls.list()).webhooks == [webhook]


async def test_every_field_is_kept(calls: WebhookCalls) -> None:
    wanted = webhook_pb2.Webhook(
        display_name="Mine",
        url="http://127.0.0.1:8080/hook?a=b",
        format=webhook_pb2.WEBHOOK_FORMAT_GME,
        vendor_app_id="1400000000",
        filter=event_pb2.EventFilter(room_ids=["a"], labels={"b": "c"}),
        retry=webhook_pb2.WEBHOOK_RETRY_VENDOR,
        concurrency=64,
        enabled=False,
    )
    created = await calls.create(wanted, key="Abc123")
    stored = await calls.get(created.webhook.webhook_id)
    for field, value in wanted.ListFields():
        assert getattr(stored, field.name) == value, field.name
    assert (created.key.value, created.key.is_set) == ("Abc123", True)


async def test_keys_lie_nowhere_in_clear(calls: WebhookCalls, database: Database) -> None:
    made = (await calls.create(request_id="1")).key.value
    webhook_id = (await calls.create(key=_KEY, request_id="2")).webhook.webhook_id
    rotated = (await calls.rotate(webhook_id, request_id="3")).key.value

    async def read(rows: AsyncConnection) -> bytes:
        values = [value.encode() for value in await rows.scalars(sa.select(webhook_keys.c.value))]
        return b"".join([*values, *map(bytes, await rows.scalars(sa.select(requests.c.response)))])

    stored = await database.read(read)
    for value in (made, _KEY, rotated):
        assert value.encode() not in stored
        assert base64.b64decode(value.removeprefix("whsec_")) not in stored
    replies = [await calls.get(webhook_id), *(await calls.list()).webhooks]
    assert all(value not in str(reply) for value in (made, _KEY, rotated) for reply in replies)


async def test_the_same_request_gets_the_same_key(calls: WebhookCalls) -> None:
    first = await calls.create(request_id="one")
    assert await calls.create(request_id="one") == first
    assert await refused(calls.create(webhook_pb2.Webhook(url=URL + "2"), request_id="one")) == (
        "REQUEST_ID_REUSED",
    )
    webhook_id = first.webhook.webhook_id
    rotated = await calls.rotate(webhook_id, request_id="two")
    assert await calls.rotate(webhook_id, request_id="two") == rotated
    await calls.delete(webhook_id, request_id="three")
    await calls.delete(webhook_id, request_id="three")
    assert await calls.create(request_id="one") == first
    assert not await calls.is_there(webhook_id)


async def test_at_once_the_same_request_makes_one(calls: WebhookCalls) -> None:
    replies = await asyncio.gather(*(calls.create(request_id="one") for _ in range(5)))
    assert len({reply.webhook.webhook_id for reply in replies}) == 1
    assert len((await calls.list()).webhooks) == 1


async def test_an_update_changes_what_its_mask_names(calls: WebhookCalls, clock: ManualClock) -> None:
    made = (await calls.create()).webhook
    clock.advance(1)
    wanted = webhook_pb2.Webhook(
        app_id=APP,
        webhook_id=made.webhook_id,
        display_name="new",
        url=URL + "/new",
        concurrency=2,
        enabled=False,
        etag=made.etag,
    )
    named = await calls.update(wanted, "url")
    assert (named.url, named.display_name, named.concurrency, named.enabled) == (URL + "/new", "", 8, True)
    assert named.update_time.ToNanoseconds() == clock.now_ns()
    assert named.etag != made.etag
    assert await refused(calls.update(wanted)) == ("ETAG_MISMATCH",)
    wanted.etag = named.etag
    everything = await calls.update(wanted)
    assert (everything.display_name, everything.concurrency, everything.enabled) == ("new", 2, False)
    same = await calls.update(everything)
    assert same == everything, "an update that changes nothing is none"
    empty = webhook_pb2.Webhook(app_id=APP, webhook_id=made.webhook_id)
    cleared = await calls.update(empty, "display_name", "filter", "concurrency", "enabled")
    assert (cleared.display_name, cleared.concurrency, cleared.enabled) == ("", 8, True)
    assert await refused(calls.update(empty, "url")) == ("FIELD_REQUIRED", "webhook.url")
    assert await refused(calls.update(empty, "format")) == ("INVALID_UPDATE_MASK", "update_mask")


async def test_vendors_have_numbers_of_their_own(calls: WebhookCalls, database: Database) -> None:
    gme = webhook_pb2.Webhook(url=URL, format=webhook_pb2.WEBHOOK_FORMAT_GME)
    assert await refused(calls.create(gme)) == ("INVALID_VALUE", "webhook.vendor_app_id")
    await add_application(database, "1400000000")
    own = webhook_pb2.Webhook(app_id="1400000000", url=URL, format=webhook_pb2.WEBHOOK_FORMAT_GME)
    made = (await calls.create(own)).webhook
    assert made.vendor_app_id == ""
    made.vendor_app_id = "no-number"
    assert await refused(calls.update(made, "vendor_app_id")) == ("INVALID_VALUE", "webhook.vendor_app_id")
    ours = webhook_pb2.Webhook(url=URL, vendor_app_id="1")
    assert await refused(calls.create(ours)) == ("INVALID_VALUE", "webhook.vendor_app_id")


async def test_keys_that_are_none_are_refused(calls: WebhookCalls) -> None:
    ours, volc = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE, webhook_pb2.WEBHOOK_FORMAT_VOLC
    ids = {
        kind: (await calls.create(webhook_pb2.Webhook(url=URL, format=kind))).webhook.webhook_id
        for kind in (ours, volc)
    }
    for kind, key in (
        (ours, "secret"),
        (ours, "whsec_" + base64.b64encode(bytes(23)).decode()),
        (ours, "whsec_" + base64.b64encode(bytes(65)).decode()),
        (ours, "whsec_" + "!" * 32),
        (ours, base64.b64encode(bytes(24)).decode()),
        (ours, "whsec_" + "A" * 1_000_000),
        (volc, "a-b"),
        (volc, "é"),
        (volc, "a" * 33),
    ):
        wanted = webhook_pb2.Webhook(url=URL, format=kind)
        assert await refused(calls.create(wanted, key=key)) == ("INVALID_WEBHOOK_KEY", "key")
        assert await refused(calls.rotate(ids[kind], key=key)) == ("INVALID_WEBHOOK_KEY", "key")


async def test_keys_overlap_and_end(calls: WebhookCalls, clock: ManualClock) -> None:
    first = await calls.create()
    webhook_id = first.webhook.webhook_id
    second = await calls.rotate(webhook_id)
    assert second.key.value != first.key.value
    assert await calls.signing_keys(webhook_id) == [second.key.value, first.key.value]
    newest, before = second.webhook.keys
    assert not newest.HasField("expire_time")
    assert before.expire_time.ToNanoseconds() == clock.now_ns() + 24 * _HOUR_NS
    assert second.webhook.etag != first.webhook.etag
    third = await calls.rotate(webhook_id, overlap=Duration(seconds=7200), key=_KEY)
    ends = [key.expire_time.ToNanoseconds() for key in third.webhook.keys]
    assert ends == [0, clock.now_ns() + 2 * _HOUR_NS, clock.now_ns() + 2 * _HOUR_NS]
    # None signs for longer than it would have.
    fourth = await calls.rotate(webhook_id, overlap=Duration(seconds=7 * 24 * 3600))
    assert [key.expire_time.ToNanoseconds() for key in fourth.webhook.keys][2:] == ends[1:]
    clock.advance(2 * 3600)
    assert await calls.signing_keys(webhook_id) == [fourth.key.value, _KEY]
    assert [key.key_id for key in (await calls.get(webhook_id)).keys] == [
        key.key_id for key in fourth.webhook.keys[:2]
    ]
    last = await calls.rotate(webhook_id, overlap=Duration())
    assert await calls.signing_keys(webhook_id) == [last.key.value]
    for seconds in (-1, 7 * 24 * 3600 + 1):
        answer = await refused(calls.rotate(webhook_id, overlap=Duration(seconds=seconds)))
        assert answer == ("INVALID_VALUE", "overlap")


async def test_too_many_keys_are_ended_by_no_overlap_alone(calls: WebhookCalls) -> None:
    webhook_id = (await calls.create()).webhook.webhook_id
    for _ in range(4):
        await calls.rotate(webhook_id)
    assert await refused(calls.rotate(webhook_id)) == ("TOO_MANY_WEBHOOK_KEYS",)
    assert len(await calls.signing_keys(webhook_id)) == 5
    await calls.rotate(webhook_id, overlap=Duration())
    assert len(await calls.signing_keys(webhook_id)) == 1


async def test_lists_come_page_by_page_oldest_first(calls: WebhookCalls, clock: ManualClock) -> None:
    made = [(await calls.create()).webhook.webhook_id for _ in range(LIMIT)]
    assert await refused(calls.create()) == ("TOO_MANY_WEBHOOKS",)
    first = await calls.list(page_size=2)
    rest = await calls.list(page_size=2, page_token=first.next_page_token)
    assert [each.webhook_id for each in (*first.webhooks, *rest.webhooks)] == made
    assert rest.next_page_token == ""
    assert await refused(calls.list(app_id="other", page_token=first.next_page_token)) == (
        "INVALID_PAGE_TOKEN",
        "page_token",
    )
    assert await refused(calls.list(app_id="nobody")) == ("APPLICATION_NOT_FOUND",)
    await calls.delete(made[0])
    clock.advance(1)
    assert (await calls.create()).webhook.webhook_id not in made


async def test_a_deleted_webhook_is_gone_for_every_call(calls: WebhookCalls, database: Database) -> None:
    webhook = (await calls.create()).webhook
    await database.write(lambda uow: uow.append(warning("one")))
    await calls.delete(webhook.webhook_id)
    await database.write(lambda uow: uow.append(warning("two")))
    for call in (
        calls.get(webhook.webhook_id),
        calls.update(webhook),
        calls.delete(webhook.webhook_id),
        calls.rotate(webhook.webhook_id),
        calls.deliveries(webhook.webhook_id),
        calls.resend(webhook.webhook_id),
    ):
        assert await refused(call) == ("WEBHOOK_NOT_FOUND",)
    assert list((await calls.list()).webhooks) == []


async def test_tenants_are_apart(database: Database, tmp_path: Path, clock: ManualClock) -> None:
    await add_application(database, "other")
    key = "a-key-of-one"
    keys = [{"sha256": hashlib.sha256(key.encode()).hexdigest(), "applications": [APP]}]
    async with webhook_calls(database, tmp_path, clock, api_keys=keys) as calls:
        calls.key = key
        mine = (await calls.create()).webhook.webhook_id
        for call in (
            calls.create(app_id="other"),
            calls.list(app_id="other"),
            calls.get(mine, app_id="other"),
            calls.update(webhook_pb2.Webhook(app_id="other", webhook_id=mine)),
            calls.delete(mine, app_id="other"),
            calls.rotate(mine, app_id="other"),
            calls.deliveries(mine, app_id="other"),
            calls.resend(mine, app_id="other"),
        ):
            assert (await refused(call))[0] == "APPLICATION_FORBIDDEN"
    (tmp_path / "open").mkdir()
    async with webhook_calls(database, tmp_path / "open", clock) as calls:
        theirs = webhook_pb2.Webhook(app_id="other", webhook_id=mine, url=URL + "/theirs")
        for call in (
            calls.get(mine, app_id="other"),
            calls.update(theirs),
            calls.delete(mine, app_id="other"),
            calls.rotate(mine, app_id="other"),
            calls.deliveries(mine, app_id="other"),
            calls.resend(mine, app_id="other"),
        ):
            assert await refused(call) == ("WEBHOOK_NOT_FOUND",)
        await database.write(lambda uow: uow.append(warning("theirs", app_id="other")))
        assert list((await calls.deliveries(mine)).deliveries) == []


async def test_deliveries_are_listed_in_their_order(
    calls: WebhookCalls, database: Database, clock: ManualClock
) -> None:
    webhook_id = (await calls.create()).webhook.webhook_id
    await add_tasks(database, ["1", "2"])
    for task_id in ("1", "2", "1", "", "2"):
        await append(database, "x", task_id)
        clock.advance(1)
    pages, token = [], ""
    while True:
        page = await calls.deliveries(webhook_id, page_size=2, page_token=token)
        pages += list(page.deliveries)
        token = page.next_page_token
        if not token:
            break
    assert [(each.sequence, each.task_id) for each in pages] == [
        (1, "1"),
        (2, "2"),
        (3, "1"),
        (4, ""),
        (5, "2"),
    ]
    assert {each.state for each in pages} == {_PENDING}
    # Of each task the first has a time.
    assert [each.HasField("next_attempt_time") for each in pages] == [True, True, False, True, False]
    assert len({each.delivery_id for each in pages}) == 5
    of_task = await calls.deliveries(webhook_id, task_id="1")
    assert [each.sequence for each in of_task.deliveries] == [1, 3]
    delivered = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
    assert list((await calls.deliveries(webhook_id, delivered)).deliveries) == []
    status = (await calls.get(webhook_id)).status
    assert (status.pending_count, status.dead_count) == (5, 0)
    assert status.oldest_pending_time == pages[0].event_time


async def test_what_no_delivery_is_can_not_be_sent_again(calls: WebhookCalls, database: Database) -> None:
    webhook_id = (await calls.create()).webhook.webhook_id
    await database.write(lambda uow: uow.append(warning("one")))
    [there] = (await calls.deliveries(webhook_id)).deliveries
    for wrong in ("1-0000000000000000", "1", "9" * 30, "-", "one", "²-1"):
        answer = await refused(calls.resend(webhook_id, there.delivery_id, wrong))
        assert answer[0] == ("INVALID_ID" if wrong == "²-1" else "DELIVERY_NOT_FOUND")
    assert await refused(calls.resend(webhook_id, *["1-a"] * 1001)) == ("INVALID_VALUE", "delivery_ids")
    assert (await calls.resend(webhook_id, there.delivery_id, there.delivery_id)).count == 1
    assert (await calls.resend(webhook_id)).count == 0


async def test_dead_letters_are_sent_again(
    calls: WebhookCalls, database: Database, clock: ManualClock
) -> None:
    webhook_id = (await calls.create()).webhook.webhook_id
    for _ in range(3):
        await append(database, "x")
        found = await due(database, webhook_id, clock.now_ns())
        await settle(database, found, _DEAD, attempt_ns=clock.now_ns(), error="HTTP 500")
    dead = (await calls.deliveries(webhook_id, _DEAD)).deliveries
    assert [(each.attempts, each.last_status_code, each.last_error) for each in dead] == [
        (1, 500, "HTTP 500")
    ] * 3
    assert not any(each.HasField("next_attempt_time") for each in dead)
    status = (await calls.get(webhook_id)).status
    assert (status.dead_count, status.pending_count, status.last_error) == (3, 0, "HTTP 500")
    assert status.last_failure_time.ToNanoseconds() == clock.now_ns()
    first = await calls.resend(webhook_id, dead[1].delivery_id, request_id="one")
    assert (first.count, first.dead_count) == (1, 2)
    assert await calls.resend(webhook_id, dead[1].delivery_id, request_id="one") == first
    rest = await calls.resend(webhook_id)
    assert (rest.count, rest.dead_count) == (2, 0)
    again = (await calls.deliveries(webhook_id)).deliveries
    assert [each.delivery_id for each in again] == [each.delivery_id for each in dead]
    assert [(each.state, each.attempts) for each in again] == [(_PENDING, 0)] * 3
