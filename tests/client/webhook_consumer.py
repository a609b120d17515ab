"""A program as users of webhooks write it: `python webhook_consumer.py KEY < REQUESTS` verifies requests, each a line
of JSON with `headers` and `body`, in one call and through an ASGI application.

It needs the dist `roomtape` alone, is strictly typed, and runs on the oldest and the newest runtime; the receiver for
aiohttp needs aiohttp.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_type

from roomtape.client import (
    ReceivedWebhook,
    RecentWebhooks,
    SeenWebhooks,
    WebhookError,
    WebhookReceiver,
    WebhookSignatureError,
    WebhookTimestampError,
    WebhookVerifier,
    verify_webhook,
)
from roomtape.client.webhooks_asgi import WebhookApp
from roomtape.v1 import event_pb2

if TYPE_CHECKING:
    from aiohttp import web

YEARS_SECONDS = 100 * 365 * 86_400


class Database:
    """Remembers what was taken, as a table of the user's would."""

    def __init__(self) -> None:
        self._rows: set[str] = set()

    async def has(self, webhook_id: str) -> bool:
        return webhook_id in self._rows

    async def add(self, webhook_id: str) -> None:
        self._rows.add(webhook_id)


def in_one_call(body: bytes, headers: Mapping[str, str], key: str) -> str:
    try:
        event = verify_webhook(body, headers, [key], tolerance_seconds=YEARS_SECONDS)
    except WebhookSignatureError:
        return "forged"
    except WebhookTimestampError:
        return "old"
    except WebhookError as error:
        return str(error)
    assert_type(event, event_pb2.Event)
    return event_pb2.EventType.Name(event.type)


async def through_asgi(requests: list[tuple[bytes, dict[str, str]]], key: str) -> tuple[list[int], list[str]]:
    seen: SeenWebhooks = Database()
    events: list[str] = []

    async def on_event(event: event_pb2.Event) -> None:
        events.append(event.room_id)

    verifier = WebhookVerifier(key, tolerance_seconds=YEARS_SECONDS)
    assert_type(verifier.verify(*requests[0]), ReceivedWebhook)
    app = WebhookApp(WebhookReceiver(verifier, on_event, seen=seen))
    return [await call(app, body, headers) for body, headers in requests], events


async def call(app: WebhookApp, body: bytes, headers: dict[str, str]) -> int:
    """What an ASGI server does."""
    statuses: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        statuses.append(message.get("status"))

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive, send)
    status = statuses[0]
    assert isinstance(status, int)
    return status


def aiohttp_application(key: str) -> "web.Application":
    from aiohttp import web

    from roomtape.client.webhooks_aiohttp import webhook_handler, webhook_route

    async def on_event(event: event_pb2.Event) -> None:
        print(event.room_id)

    receiver = WebhookReceiver(WebhookVerifier([key]), on_event, seen=RecentWebhooks(limit=100))
    application = web.Application()
    application.add_routes([webhook_route("/webhooks", receiver)])
    application.router.add_post("/also", webhook_handler(receiver))
    return application


def main(key: str) -> int:
    requests: list[tuple[bytes, dict[str, str]]] = []
    for line in sys.stdin:
        request = json.loads(line)
        requests.append((request["body"].encode(), request["headers"]))
    told = [in_one_call(body, headers, key) for body, headers in requests]
    statuses, rooms = asyncio.run(through_asgi(requests, key))
    print(json.dumps({"told": told, "statuses": statuses, "rooms": rooms}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
