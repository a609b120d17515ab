"""A receiver of webhooks as an ASGI 3 application, to be served alone or mounted in another."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import cast

from roomtape.client.webhooks_receiving import BodyCutOff, WebhookAnswer, WebhookReceiver

__all__ = ["WebhookApp"]

_Message = Mapping[str, object]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[dict[str, object]], Awaitable[None]]


class WebhookApp:
    """Answers when the receiver has taken the webhook. All its paths are the webhook's; mount it on one."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await _lifespan(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close"})
            case other:
                raise ValueError(f"ASGI has no scope {other!r} that a webhook could come in")

    async def _http(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        answer = await self._receiver.receive(str(scope["method"]), named, _body(receive))
        # ASGI lets one send to whoever went away.
        await _answer(send, answer)


async def _body(receive: _Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyCutOff
        yield cast("bytes", message.get("body", b""))
        more = bool(message.get("more_body", False))


async def _answer(send: _Send, answer: WebhookAnswer) -> None:
    body = answer.text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")] if body else []
    if answer.status != HTTPStatus.NO_CONTENT:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
