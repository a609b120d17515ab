"""Events a second to a receiver on this machine: out of the outbox, signed, in order, and stored that they arrived.

The peer posts the same body and as many headers to the same receiver, and does nothing else.
"""

import asyncio
import json
import secrets
import statistics
import time
from collections.abc import Sequence

from roomtape.v1 import event_pb2, segment_pb2, webhook_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.events.build import segment_event
from roomtape_service.storage.secrets import SecretBox, load_or_create_key
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, SigningKey
from roomtape_service.webhooks.formats.table import format_of
from roomtape_service.webhooks.keys import key_binding
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.service import APP, Service
from tests.support.databases import add_application, add_tasks

__all__ = ["measure"]

_NAME = "webhooks"
_GOAL = 1000.0
_RATIO_NAME = "webhooks_to_bare"
_RATIO_GOAL = 0.35
_ROUNDS = 3
_EVENTS = 4000
_TASKS = 400
_PARALLEL = 64
_UNIT_EVENTS = 200
_FORMAT = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    ours, peer = [], []
    service = Service(bench.folder / _NAME, webhook_http="allow", webhook_allowed_networks="127.0.0.0/8")
    with Child("tests.bench.receiving") as receiver:
        url = f"http://127.0.0.1:{receiver.number('port'):.0f}/"
        webhook_ids = [f"round-{number}" for number in range(_ROUNDS)]
        order = json.dumps(asyncio.run(_fill(service, url, webhook_ids)))
        with Child("tests.bench.receiving", url, str(_PARALLEL)) as poster, service:
            poster.hear()
            for webhook_id in webhook_ids:
                receiver.tell(str(_EVENTS))
                started_ns = time.monotonic_ns()
                service.enable_webhook(webhook_id)
                ours.append(_EVENTS / (receiver.number("last_ns") - started_ns) * 1e9)
                receiver.tell(str(_EVENTS))
                poster.tell(order)
                peer.append(_EVENTS / poster.number("seconds"))
                receiver.hear()
    return [
        Figure(
            name=_NAME,
            ours=statistics.median(ours),
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="deliveries/s",
            lower_is_better=False,
        ),
        Figure(
            name=_RATIO_NAME,
            ours=statistics.median(ours),
            peer=statistics.median(peer),
            peer_name="bare aiohttp posts",
            goal=_RATIO_GOAL,
            unit="deliveries/s",
            lower_is_better=False,
        ),
    ]


async def _fill(service: Service, url: str, webhook_ids: Sequence[str]) -> dict[str, object]:
    """Queues events for webhooks that are disabled still; returns what the peer is to post."""
    format, clock = format_of(_FORMAT), SystemClock()
    key = format.make_key(secrets.token_bytes)
    box = SecretBox(load_or_create_key(service.secret_key_file))
    task_ids = [str(1000 + number) for number in range(_TASKS)]
    database = Database(f"sqlite:///{service.database_file}", clock)
    await database.open()
    try:
        await add_application(database, APP)
        await add_tasks(database, task_ids, app_id=APP)

        async def create(uow: UnitOfWork) -> None:
            for webhook_id in webhook_ids:
                await webhook_rows.add(uow, _webhook(webhook_id, url))
                sealed = box.seal_text(APP, key_binding(webhook_id, "key"), key)
                await webhook_rows.add_first_key(uow, KeyRow(webhook_id, 1, "key", sealed, uow.now_ns))

        async def append(uow: UnitOfWork) -> None:
            for number in range(_UNIT_EVENTS):
                await uow.append(_event(task_ids[number % _TASKS]))

        await database.write(create)
        for _ in range(_EVENTS // _UNIT_EVENTS):
            await database.write(append)
            task_ids.append(task_ids.pop(0))
    finally:
        await database.aclose()
    delivery = Delivery(secrets.token_hex(), clock.now_ns())
    context = FormatContext(vendor_app_id=APP)
    (request,) = format.requests(_event(task_ids[0]), context, [SigningKey(key)], delivery)
    return {"count": _EVENTS, "headers": dict(request.headers), "body": request.body.decode()}


def _webhook(webhook_id: str, url: str) -> WebhookRow:
    return WebhookRow(
        webhook_id=webhook_id,
        app_id=APP,
        display_name="",
        url=url,
        format=_FORMAT,
        vendor_app_id="",
        filter=b"",
        retry=webhook_pb2.WEBHOOK_RETRY_ROOMTAPE,
        concurrency=_PARALLEL,
        is_enabled=False,
    )


def _event(task_id: str) -> event_pb2.Event:
    segment = segment_pb2.Segment(
        recording_id="1000000000000000001",
        task_id=task_id,
        user_id="ada",
        object_key=f"bench_room_ada/{task_id}_2026-01-01-00-00-00_0_audio.mp3",
        size_bytes=1 << 20,
        sha256="0" * 64,
        sample_rate_hz=48_000,
    )
    segment.start_time.GetCurrentTime()
    segment.end_time.GetCurrentTime()
    event = segment_event(event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, APP, segment)
    event.task_id = task_id
    return event
