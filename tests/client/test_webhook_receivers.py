"""Receivers of webhooks in real servers, aiohttp's and one of ASGI, called over the network."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from roomtape.client import RecentWebhooks, WebhookReceiver, WebhookVerifier
from roomtape.client.webhooks_aiohttp import webhook_handler, webhook_route
from roomtape.client.webhooks_asgi import WebhookApp
from roomtape.v1 import event_pb2
from tests.support.webhook_requests import KEY, OTHER_KEY, SENT_SECONDS, event, request

Serving = Callable[[WebhookReceiver], AbstractAsyncContextManager[str]]

MAX_BODY_BYTES = 4_096


@asynccontextmanager
async def in_aiohttp(receiver: WebhookReceiver) -> AsyncGenerator[str, None]:
    """A URL of aiohttp's server."""
    app = web.Application()
    app.add_routes([webhook_route("/hook", receiver)])
    app.router.add_route("*", "/any", webhook_handler(receiver))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def in_asgi(receiver: WebhookReceiver) -> AsyncGenerator[str, None]:
    """A URL of an ASGI server, with its lifespan."""
    settings = uvicorn.Config(
        WebhookApp(receiver), host="127.0.0.1", port=0, log_config=None, lifespan="on", ws="none", loop="none"
    )
    server = Uvicorn(settings)
    serving = asyncio.create_task(server.serve())
    try:
        await server.started_up.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        server.should_exit = True
        await serving


class Uvicorn(uvicorn.Server):
    """Tells when it serves, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_up = asyncio.Event()

    async def startup(self, *arguments: object, **options: object) -> None:
        await super().startup()
        self.started_up.set()


SERVERS: Mapping[str, Serving] = {"aiohttp": in_aiohttp, "asgi": in_asgi}


@pytest.fixture(params=SERVERS)
def serving(request: pytest.FixtureRequest) -> Serving:
    return SERVERS[request.param]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Receiving:
    """What a user's coroutine does."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.failures: list[Exception] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, event: event_pb2.Event) -> None:
        self.began.set()
        await self.may_end.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.events.append(event)

    def receiver(self, *, is_deduplicated: bool = False) -> WebhookReceiver:
        return WebhookReceiver(
            WebhookVerifier(KEY, now_ns=lambda: SENT_SECONDS * 1_000_000_000),
            self,
            seen=RecentWebhooks() if is_deduplicated else None,
            max_body_bytes=MAX_BODY_BYTES,
        )


async def send(
    session: aiohttp.ClientSession, url: str, *keys: str, webhook_id: str = "delivery-1"
) -> tuple[int, str]:
    made = request(event(), *keys, webhook_id=webhook_id)
    return await post(session, url, made.body, made.headers)


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    async with session.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_an_event_is_taken(serving: Serving, session: aiohttp.ClientSession) -> None:
    receiving = Receiving()
    async with serving(receiving.receiver()) as url:
        assert await send(session, url) == (204, "")
    assert receiving.events == [event()]


async def test_the_answer_comes_after_the_work(serving: Serving, session: aiohttp.ClientSession) -> None:
    receiving = Receiving()
    receiving.may_end.clear()
    async with serving(receiving.receiver()) as url:
        sending = asyncio.create_task(send(session, url))
        await receiving.began.wait()
        # Another request goes all the way there and back, and this one still has no answer.
        assert (await send(session, url, OTHER_KEY))[0] == 401
        assert not sending.done()
        receiving.may_end.set()
        assert (await sending)[0] == 204


async def test_what_is_not_ours_is_refused_with_its_reason(
    serving: Serving, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving()
    made = request(event())
    async with serving(receiving.receiver()) as url:
        status, text = await send(session, url, OTHER_KEY)
        assert status == 401
        assert "known key" in text
        status, text = await post(session, url, made.body, {})
        assert status == 400
        assert "webhook-id" in text
        late = request(event(), sent_seconds=SENT_SECONDS - 3_600)
        status, text = await post(session, url, late.body, late.headers)
        assert status == 400
        assert "3600 s ago" in text
        async with session.get(url) as answer:
            assert answer.status == 405
    assert receiving.events == []
    assert KEY.removeprefix("whsec_") not in caplog.text


async def test_methods_are_refused_by_the_receiver_too(session: aiohttp.ClientSession) -> None:
    async with (
        in_aiohttp(Receiving().receiver()) as url,
        session.put(url.replace("/hook", "/any")) as answer,
    ):
        assert (answer.status, await answer.text()) == (405, "webhooks are sent by POST")


async def test_a_body_is_read_up_to_its_bound(serving: Serving, session: aiohttp.ClientSession) -> None:
    receiving = Receiving()
    async with serving(receiving.receiver()) as url:
        assert (await post(session, url, b"x" * (MAX_BODY_BYTES + 1), {}))[0] == 413
        assert (await post(session, url, b"x" * MAX_BODY_BYTES, {}))[0] == 400
        assert (await send(session, url))[0] == 204
    assert receiving.events == [event()]


async def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(
    serving: Serving, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving()
    made = request(event())
    head = "".join(f"{name}: {value}\r\n" for name, value in made.headers.items())
    async with serving(receiving.receiver()) as url:
        address = urlsplit(url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n{head}\r\n".encode())
        writer.write(made.body)
        await writer.drain()
        # The server has read the first half when it answers another.
        assert (await send(session, url, OTHER_KEY))[0] == 401
        writer.close()
        await writer.wait_closed()
        assert (await send(session, url))[0] == 204
    assert receiving.events == [event()]
    assert "Traceback" not in caplog.text


async def test_an_error_of_the_work_makes_it_come_again(
    serving: Serving, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving()
    receiving.failures.append(RuntimeError("the database of the receiver is away"))
    async with serving(receiving.receiver(is_deduplicated=True)) as url:
        with caplog.at_level(logging.ERROR, "roomtape.client"):
            status, text = await send(session, url)
        assert status == 500
        assert "database" not in text
        assert "the database of the receiver is away" in caplog.text
        assert (await send(session, url))[0] == 204
    assert receiving.events == [event()]


async def test_what_was_taken_is_not_taken_again(serving: Serving, session: aiohttp.ClientSession) -> None:
    receiving = Receiving()
    async with serving(receiving.receiver(is_deduplicated=True)) as url:
        for webhook_id in ("delivery-1", "delivery-1", "delivery-2", "delivery-1"):
            assert (await send(session, url, webhook_id=webhook_id))[0] == 204
    assert receiving.events == [event(), event()]


async def test_a_second_attempt_waits_for_the_first(serving: Serving, session: aiohttp.ClientSession) -> None:
    receiving = Receiving()
    receiving.may_end.clear()
    async with serving(receiving.receiver(is_deduplicated=True)) as url:
        attempts = [asyncio.create_task(send(session, url)) for _ in range(3)]
        await receiving.began.wait()
        assert (await send(session, url, OTHER_KEY))[0] == 401
        assert not any(attempt.done() for attempt in attempts)
        receiving.may_end.set()
        assert [status for status, _ in await asyncio.gather(*attempts)] == [204, 204, 204]
    assert receiving.events == [event()]


async def test_recent_webhooks_forget_the_oldest() -> None:
    recent = RecentWebhooks(limit=2)
    for webhook_id in ("a", "b", "c"):
        await recent.add(webhook_id)
    assert [await recent.has(each) for each in ("a", "b", "c")] == [False, True, True]
