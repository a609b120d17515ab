"""What every receiver of webhooks does, whatever server it stands in.

1. Read the body, up to a bound.
2. Verify signature and time.
3. Leave out a webhook that has been taken before, if the caller wants that.
4. Run the caller's coroutine to its end, and only then answer 204. An error of it is answered with 500, so that the
   server sends the webhook again.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from roomtape.client.webhooks import ReceivedWebhook, WebhookError, WebhookSignatureError, WebhookVerifier
from roomtape.v1 import event_pb2

__all__ = ["BodyCutOff", "OnEvent", "RecentWebhooks", "SeenWebhooks", "WebhookAnswer", "WebhookReceiver"]

_LOG = logging.getLogger("roomtape.client")

OnEvent = Callable[[event_pb2.Event], Awaitable[None]]
"""Does what the event calls for. When it returns, the server forgets the event; when it raises, it comes again."""

_MAX_BODY_BYTES = 1 << 20
_RECENT_WEBHOOKS = 10_000
"""An hour of three a second: longer than the longest wait between two attempts."""


class SeenWebhooks(Protocol):
    """Remembers which webhooks have been taken. One in a database survives restarts, and serves many processes."""

    async def has(self, webhook_id: str) -> bool:
        """Whether it has been added."""
        ...

    async def add(self, webhook_id: str) -> None:
        """Remembers it, after the caller's coroutine has done its work."""
        ...


class RecentWebhooks:
    """The newest webhooks, in memory."""

    def __init__(self, limit: int = _RECENT_WEBHOOKS) -> None:
        self._limit = limit
        self._ids: OrderedDict[str, None] = OrderedDict()

    async def has(self, webhook_id: str) -> bool:
        return webhook_id in self._ids

    async def add(self, webhook_id: str) -> None:
        self._ids[webhook_id] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)


class BodyCutOff(Exception):
    """Raised by the chunks of a body whose sender went away before its end."""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What to answer: an HTTP status, and a line that says why it is none of 200 to 299."""

    status: HTTPStatus
    text: str = ""


class WebhookReceiver:
    """Takes the webhooks of one URL; `roomtape.client.webhooks_aiohttp` and `webhooks_asgi` put it into a server."""

    def __init__(
        self,
        verifier: WebhookVerifier,
        on_event: OnEvent,
        *,
        seen: SeenWebhooks | None = None,
        max_body_bytes: int = _MAX_BODY_BYTES,
    ) -> None:
        """`seen` leaves out what has been taken before; without it, `on_event` may get an event more than once."""
        self._verifier = verifier
        self._on_event = on_event
        self._seen = seen
        self._max_body_bytes = max_body_bytes
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def receive(
        self, method: str, headers: Mapping[str, str], chunks: AsyncIterable[bytes]
    ) -> WebhookAnswer:
        """Takes one request; what `on_event` raises is logged and answered with 500. Being cancelled cancels it."""
        if method != "POST":
            return WebhookAnswer(HTTPStatus.METHOD_NOT_ALLOWED, "webhooks are sent by POST")
        try:
            body = await self._read(chunks)
        except BodyCutOff:
            return WebhookAnswer(HTTPStatus.BAD_REQUEST, "the body has no end")
        if body is None:
            return WebhookAnswer(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a webhook has at most {self._max_body_bytes} bytes"
            )
        try:
            webhook = self._verifier.verify(body, headers)
        except WebhookError as error:
            _LOG.warning("refused a webhook: %s", error)
            unsigned = isinstance(error, WebhookSignatureError)
            return WebhookAnswer(HTTPStatus.UNAUTHORIZED if unsigned else HTTPStatus.BAD_REQUEST, str(error))
        try:
            await self._take(webhook)
        except Exception:
            _LOG.exception("the webhook %s was not taken, and will come again", webhook.webhook_id)
            return WebhookAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, "it could not be taken; send it again")
        return WebhookAnswer(HTTPStatus.NO_CONTENT)

    async def _read(self, chunks: AsyncIterable[bytes]) -> bytes | None:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._max_body_bytes:
                return None
        return bytes(body)

    async def _take(self, webhook: ReceivedWebhook) -> None:
        if self._seen is None:
            await self._on_event(webhook.event)
            return
        # The server gave up waiting, and tries again while we are still at it: then this one waits for that one.
        async with self._turn(webhook.webhook_id):
            if not await self._seen.has(webhook.webhook_id):
                await self._on_event(webhook.event)
                await self._seen.add(webhook.webhook_id)

    @asynccontextmanager
    async def _turn(self, webhook_id: str) -> AsyncGenerator[None, None]:
        lock, users = self._turns.get(webhook_id, (asyncio.Lock(), 0))
        self._turns[webhook_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(webhook_id)
            if users > 1:
                self._turns[webhook_id] = lock, users - 1
