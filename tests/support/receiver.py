"""A receiver of webhooks on loopback that keeps a log, and misbehaves as it is told."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aiohttp import web

__all__ = ["Conduct", "Receipt", "Receiver", "receiver"]

_GIGABYTE_PIECE = b"\0" * (256 * 1024)
_GIGABYTE_PIECES = 4096
_DRIP_SECONDS = 0.01


class Conduct(StrEnum):
    """How a request is answered."""

    TAKE = "200"
    TAKE_204 = "204"
    FAIL = "500"
    GONE = "410"
    BUSY = "503 with Retry-After"
    REDIRECT = "307"
    HANG = "no answer"
    RESET = "reset before the answer"
    RESET_WITHIN = "reset within the head of the answer"
    GIGABYTE = "200 and a gigabyte"
    GIGABYTE_500 = "500 and a gigabyte"
    HEADERS = "a head without end"
    SLOW = "a byte now and then"
    GARBAGE = "no HTTP"
    CLOSE = "200, and the connection is closed"
    TLS = "the handshake fails"
    """Of the next connection; this request is reset."""

    @property
    def is_taking(self) -> bool:
        """Whether the sender must count the event as received."""
        return self in _TAKING


_TAKING = {Conduct.TAKE, Conduct.TAKE_204, Conduct.GIGABYTE, Conduct.CLOSE}


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    conduct: Conduct

    @property
    def event(self) -> Mapping[str, object]:
        """The body, where it is JSON."""
        parsed: Mapping[str, object] = json.loads(self.body)
        return parsed


class Receiver:
    """Answers each request as `conduct` says; `receipts` is what came, in the order in which it came whole."""

    def __init__(self, conduct: Callable[[web.Request, bytes], Conduct] | None = None) -> None:
        self.conduct = conduct or (lambda request, body: Conduct.TAKE)
        self.receipts: list[Receipt] = []
        self.latency_seconds = 0.0
        """Before each answer."""
        self.redirected = 0
        """Requests that followed a redirect."""
        self.port = 0
        self.under_way = 0
        self.most_under_way = 0
        self._released = asyncio.Event()
        self._refused_handshakes = 0
        self._runner: web.AppRunner | None = None
        self._is_tls = False

    @property
    def url(self) -> str:
        """Where it is, with a path."""
        return f"{'https' if self._is_tls else 'http'}://127.0.0.1:{self.port}/hook"

    @property
    def taken(self) -> list[Receipt]:
        """What it took."""
        return [receipt for receipt in self.receipts if receipt.conduct.is_taking]

    async def start(self, *, host: str = "127.0.0.1", tls: tuple[Path, Path] | None = None) -> None:
        """Listens, on the port that it had before. `tls` is a certificate and its key."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/{path:.*}", self._take)
        app.router.add_get("/{path:.*}", self._follow)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0, handler_cancellation=True)
        await self._runner.setup()
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            context.sni_callback = self._shake
            self._is_tls = True
        listener = socket.create_server((host, self.port), backlog=1024)
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener, ssl_context=context).start()

    async def start_again(self) -> None:
        """Listens where it did, if it was closed. Not for TLS."""
        if self._runner is None:
            await self.start()

    def release(self) -> None:
        """Lets what hangs go: it is reset."""
        self._released.set()
        self._released = asyncio.Event()

    async def aclose(self) -> None:
        """Idempotent."""
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _follow(self, request: web.Request) -> web.Response:
        self.redirected += 1
        return web.Response()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if request.path == "/elsewhere":
                self.redirected += 1
            body = await request.read()
            conduct = self.conduct(request, body)
            self.receipts.append(Receipt(request.path, dict(request.headers), body, conduct))
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            return await self._answer(request, conduct)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.Request, conduct: Conduct) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        match conduct:
            case Conduct.TAKE:
                return web.Response(text="ok")
            case Conduct.TAKE_204:
                return web.Response(status=204)
            case Conduct.CLOSE:
                response = web.Response(text="ok")
                response.force_close()
                return response
            case Conduct.FAIL:
                return web.Response(status=500, text="on fire")
            case Conduct.GONE:
                return web.Response(status=410)
            case Conduct.BUSY:
                return web.Response(status=503, headers={"Retry-After": "2"})
            case Conduct.REDIRECT:
                return web.Response(status=307, headers={"Location": "/elsewhere"})
            case Conduct.GIGABYTE | Conduct.GIGABYTE_500:
                return await self._pour(request, 200 if conduct is Conduct.GIGABYTE else 500)
            case Conduct.HEADERS:
                transport.write(b"HTTP/1.1 200 OK\r\n")
                await self._write_on(transport, b"X-More: and more\r\n" * 1000, 0.0)
            case Conduct.SLOW:
                await self._write_on(transport, b"H", _DRIP_SECONDS)
            case Conduct.GARBAGE:
                transport.write(b"\x16\x03\x01 not HTTP\r\n\r\n")
            case Conduct.HANG:
                await self._released.wait()
            case Conduct.RESET_WITHIN:
                transport.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            case Conduct.TLS:
                self._refused_handshakes += 1
            case Conduct.RESET:
                pass
        _reset(transport)
        return web.Response()

    async def _pour(self, request: web.Request, status: int) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        with suppress(ConnectionError):
            await response.prepare(request)
            for _ in range(_GIGABYTE_PIECES):
                await response.write(_GIGABYTE_PIECE)
        return response

    async def _write_on(self, transport: asyncio.Transport, data: bytes, seconds: float) -> None:
        text = b"HTTP/1.1 200 OK\r\n" if seconds else b""
        written = 0
        while not transport.is_closing():
            # One byte after the other of a head that never ends.
            piece = (text[written : written + 1] or b"X") if seconds else data
            transport.write(piece)
            written += 1
            await asyncio.sleep(seconds)

    def _shake(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if self._refused_handshakes:
            self._refused_handshakes -= 1
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None


def _reset(transport: asyncio.Transport) -> None:
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@asynccontextmanager
async def receiver(
    conduct: Callable[[web.Request, bytes], Conduct] | None = None,
    *,
    host: str = "127.0.0.1",
    tls: tuple[Path, Path] | None = None,
) -> AsyncIterator[Receiver]:
    """A receiver for the time of a `with`."""
    running = Receiver(conduct)
    await running.start(host=host, tls=tls)
    try:
        yield running
    finally:
        await running.aclose()
