"""A network that fails on request: an HTTP proxy on loopback between the service and a store.

It stands in front of one server and reads the requests that pass. A client reaches it as if it were the server, or,
where the client must find the server's names (a bucket in the host name) without DNS, as a proxy that it asks to
CONNECT; then TLS ends here with the test's certificate, and begins anew towards the server.
"""

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = ["Answer", "Fault", "FaultProxy", "Request", "Rule", "Upstream", "fault_proxy", "slow_down"]

_CHUNK_BYTES = 64 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    target: str
    length: int
    """Bytes of its body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered in the server's stead; the server never sees the request."""

    status: int
    reason: str
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()

    def encode(self) -> bytes:
        """As it is on the wire."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in (("Content-Type", "application/xml"), *self.headers)]
        return "\r\n".join(lines).encode() + _END_OF_HEAD + self.body


def slow_down(status: int = 503, code: str = "SlowDown") -> Answer:
    """How S3 servers say that it is too much for them."""
    text = "Please reduce your request rate."
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
    return Answer(status, code, body.encode())


class Fault(StrEnum):
    """What happens to one request."""

    ANSWER = "answer"
    """It gets the rule's answer."""
    LOSE_ANSWER = "lose answer"
    """The server has carried it out; the connection is reset before the answer comes."""
    RESET = "reset"
    """The connection is reset (RST) when `after_bytes` of its body went through."""
    HALF_CLOSE = "half close"
    """The client sees the end of the stream after `after_bytes` of its body; what it sends is still read."""
    STALL = "stall"
    """After `after_bytes` of its body nothing moves any more, until `release`; the connection stays open."""


@dataclass(slots=True)
class Rule:
    """A fault for the next `times` requests that `matches`."""

    fault: Fault
    matches: Callable[[Request], bool] = lambda request: True
    times: int = 1
    after_bytes: int = 0
    answer: Answer = field(default_factory=slow_down)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The server. With `authority` it is reached by TLS, and so is the proxy, with `certificate` and `key`."""

    port: int
    host: str = "127.0.0.1"
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    loses_answer: bool = False

    def reset(self) -> None:
        """Ends it with an RST."""
        raw: socket.socket | None = self.writer.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class FaultProxy:
    """Passes everything on, but for what `rules` and the properties say. All may be changed at any time."""

    def __init__(self, upstream: Upstream) -> None:
        self.port = 0
        self.rules: list[Rule] = []
        self.applied: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        """How many requests passed, by method."""
        self.latency_seconds = 0.0
        """Added to each piece of an answer."""
        self.bytes_per_second: float | None = None
        """Of each direction of each connection."""
        self.is_silent = False
        """Whether new connections are taken and never answered."""
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._released = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._contexts = _contexts(upstream)

    async def start(self) -> None:
        """Listens on a free port of loopback, or again on the one it had."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, limit=_HEAD_BYTES_MAX
            )
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuses new connections, until `start`; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def reset_all(self) -> None:
        """Resets the connections that are there."""
        for connection in tuple(self._connections):
            connection.reset()

    def release(self) -> None:
        """Lets what stalls go on."""
        self._released.set()
        self._released = asyncio.Event()

    def heal(self) -> None:
        """From now on nothing fails. Connections that stalled are reset, as a router does that comes back."""
        self.rules.clear()
        self.latency_seconds, self.bytes_per_second, self.is_silent = 0.0, None, False
        self.release()

    async def aclose(self) -> None:
        """Idempotent."""
        self.refuse()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        client = _Connection(reader, writer)
        self._connections.add(client)
        server: _Connection | None = None
        try:
            if self.is_silent:
                self.applied["silence"] += 1
                await self._released.wait()
                return
            name = await self._connect(client)
            server = await self._reach(name)
            answers = asyncio.create_task(self._pass_answers(server, client))
            try:
                await self._pass_requests(client, server)
            finally:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
        except EOFError:
            # One of them closed in its own time; what was written to the other still goes out.
            pass
        except (OSError, asyncio.LimitOverrunError):
            client.reset()
        finally:
            for each in (client, server):
                if each is not None:
                    self._connections.discard(each)
                    each.writer.close()

    async def _connect(self, client: _Connection) -> str:
        """Which host the client wants to reach."""
        if self._contexts is None:
            return self._upstream.host
        head = await client.reader.readuntil(_END_OF_HEAD)
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        if method != "CONNECT":
            raise ConnectionError(f"{method} is not CONNECT")
        client.writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await client.writer.drain()
        await client.writer.start_tls(self._contexts[0])
        return target.rpartition(":")[0]

    async def _reach(self, name: str) -> _Connection:
        context = self._contexts[1] if self._contexts is not None else None
        reader, writer = await asyncio.open_connection(
            self._upstream.host,
            self._upstream.port,
            ssl=context,
            server_hostname=name if context is not None else None,
        )
        connection = _Connection(reader, writer)
        self._connections.add(connection)
        return connection

    async def _pass_requests(self, client: _Connection, server: _Connection) -> None:
        while True:
            head = await client.reader.readuntil(_END_OF_HEAD)
            request = _read_head(head)
            self.requests[request.method] += 1
            rule = self._rule_for(request)
            if rule is not None and rule.fault is Fault.ANSWER:
                await client.reader.readexactly(request.length)
                client.writer.write(rule.answer.encode())
                await client.writer.drain()
                continue
            client.loses_answer = rule is not None and rule.fault is Fault.LOSE_ANSWER
            server.writer.write(head)
            left = request.length
            if rule is not None and rule.fault in (Fault.RESET, Fault.STALL, Fault.HALF_CLOSE):
                sound = min(left, rule.after_bytes)
                await self._pass_body(client, server, sound)
                left -= sound
                await self._break(rule.fault, client)
            await self._pass_body(client, server, left)

    async def _break(self, fault: Fault, client: _Connection) -> None:
        match fault:
            case Fault.STALL:
                await self._released.wait()
            case Fault.HALF_CLOSE:
                raw: socket.socket = client.writer.get_extra_info("socket")
                raw.shutdown(socket.SHUT_WR)
                while await client.reader.read(_CHUNK_BYTES):
                    pass
            case _:
                pass
        raise ConnectionResetError(f"fault: {fault}")

    async def _pass_body(self, client: _Connection, server: _Connection, length: int) -> None:
        while length:
            data = await client.reader.read(min(length, _CHUNK_BYTES))
            if not data:
                raise EOFError
            length -= len(data)
            await self._throttle(len(data))
            server.writer.write(data)
            await server.writer.drain()

    async def _pass_answers(self, server: _Connection, client: _Connection) -> None:
        with suppress(OSError):
            while data := await server.reader.read(_CHUNK_BYTES):
                if client.loses_answer:
                    break
                if self.latency_seconds:
                    await asyncio.sleep(self.latency_seconds)
                await self._throttle(len(data))
                client.writer.write(data)
                await client.writer.drain()
            else:
                # The server closed in its own time, such as after a request that it refused.
                with suppress(OSError, NotImplementedError):
                    client.writer.close()
                return
        client.reset()

    async def _throttle(self, size: int) -> None:
        if self.bytes_per_second is not None:
            await asyncio.sleep(size / self.bytes_per_second)

    def _rule_for(self, request: Request) -> Rule | None:
        for rule in self.rules:
            if rule.matches(request):
                rule.times -= 1
                if not rule.times:
                    self.rules.remove(rule)
                self.applied[rule.fault.value] += 1
                return rule
        return None


def _read_head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    length = 0
    for line in lines:
        name, _, value = line.partition(":")
        match name.lower():
            case "content-length":
                length = int(value)
            case "transfer-encoding":
                raise ConnectionError("bodies of unknown length are none of ours")
    return Request(method, target, length)


def _contexts(upstream: Upstream) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """Of the server that the proxy is, and of the client that it is."""
    if upstream.authority is None:
        return None
    assert upstream.certificate is not None, "the proxy needs a certificate of its own"
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(upstream.certificate, upstream.key)
    return ours, ssl.create_default_context(cafile=upstream.authority)


@asynccontextmanager
async def fault_proxy(upstream: Upstream) -> AsyncIterator[FaultProxy]:
    """Runs a proxy."""
    proxy = FaultProxy(upstream)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()
