"""A receiver of webhooks as a handler of aiohttp; needs the extra `[aiohttp]`."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from roomtape.client.webhooks_receiving import WebhookReceiver

__all__ = ["webhook_handler", "webhook_route"]


def webhook_handler(receiver: WebhookReceiver) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that answers when the receiver has taken the webhook."""

    async def handle(request: web.Request) -> web.Response:
        # Not request.read(): the bound is the receiver's, not the application's.
        chunks = request.content.iter_any()
        answer = await receiver.receive(request.method, request.headers, chunks)
        return web.Response(status=answer.status, text=answer.text or None)

    return handle


def webhook_route(path: str, receiver: WebhookReceiver) -> web.RouteDef:
    """A route for `Application.add_routes`."""
    return web.post(path, webhook_handler(receiver))
