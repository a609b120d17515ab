"""A receiver of webhooks as a handler of aiohttp; needs the extra `[aiohttp]`."""

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from roomtape.client.webhooks_receiving import BodyCutOff, WebhookReceiver

__all__ = ["webhook_handler", "webhook_route"]


def webhook_handler(receiver: WebhookReceiver) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that answers when the receiver has taken the webhook."""

    async def handle(request: web.Request) -> web.Response:
        answer = await receiver.receive(request.method, request.headers, _chunks(request))
        return web.Response(status=answer.status, text=answer.text or None)

    return handle


def webhook_route(path: str, receiver: WebhookReceiver) -> web.RouteDef:
    """A route for `Application.add_routes`."""
    return web.post(path, webhook_handler(receiver))


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    # Not request.read(): the bound is the receiver's, not the application's.
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, web.RequestPayloadError) as error:
        raise BodyCutOff from error
