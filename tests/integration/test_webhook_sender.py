"""One attempt at a time, against a receiver that does what receivers do."""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from roomtape_service.clock import ManualClock
from roomtape_service.webhooks.formats.format import Request
from roomtape_service.webhooks.guard import AddressGuard
from roomtape_service.webhooks.sender import Answer, Fault, Sender
from tests.support.certificates import make_certificates
from tests.support.receiver import Conduct, Receiver, receiver
from tests.support.servers import free_ports

LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
REQUEST = Request({"Content-Type": "application/json", "webhook-id": "msg_1"}, b'{"a": 1}')
TIMEOUT_SECONDS = 0.5


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """A sender that may reach this machine."""
    sender = Sender(LOOPBACK, ManualClock(), version="1.2.3")
    await sender.start()
    yield sender
    await sender.aclose()


class Names(AbstractResolver):
    """Finds for each look-up of a name the next addresses of a list; the last hold on."""

    def __init__(self, *found: list[str]) -> None:
        self.found = list(found)
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.lookups += 1
        addresses = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0)
            for each in addresses
        ]

    async def close(self) -> None:
        pass


async def test_a_request_arrives_as_it_is(sender: Sender) -> None:
    async with receiver() as running:
        answer = await sender.send(running.url, REQUEST, TIMEOUT_SECONDS)
        assert answer == Answer(200, text="ok")
        (receipt,) = running.receipts
        assert receipt.body == b'{"a": 1}'
        assert receipt.path == "/hook"
        assert receipt.headers["Content-Type"] == "application/json"
        assert receipt.headers["webhook-id"] == "msg_1"
        assert receipt.headers["User-Agent"] == "roomtape/1.2.3"
        assert set(receipt.headers) == {
            "Host",
            "User-Agent",
            "Accept-Encoding",
            "Content-Type",
            "Content-Length",
            "webhook-id",
        }


@pytest.mark.parametrize(
    ("conduct", "expected"),
    [
        (Conduct.TAKE_204, Answer(204)),
        (Conduct.FAIL, Answer(500, text="on fire")),
        (Conduct.GONE, Answer(410)),
        (Conduct.BUSY, Answer(503, rest_seconds=2.0)),
        (Conduct.REDIRECT, Answer(307)),
        (Conduct.HANG, Answer(fault=Fault.TIMEOUT, text="0.5 s")),
        (Conduct.SLOW, Answer(fault=Fault.TIMEOUT, text="0.5 s")),
        (Conduct.GARBAGE, Answer(fault=Fault.PROTOCOL)),
        (Conduct.HEADERS, Answer(fault=Fault.PROTOCOL)),
        (Conduct.RESET, Answer(fault=Fault.LOST)),
        (Conduct.RESET_WITHIN, Answer(fault=Fault.LOST)),
    ],
)
async def test_what_receivers_do_is_an_answer(sender: Sender, conduct: Conduct, expected: Answer) -> None:
    async with receiver(lambda request, body: conduct) as running:
        began = time.monotonic()
        answer = await sender.send(running.url, REQUEST, TIMEOUT_SECONDS)
        assert time.monotonic() - began < TIMEOUT_SECONDS + 1
        assert (answer.status, answer.fault, answer.rest_seconds) == (
            expected.status,
            expected.fault,
            expected.rest_seconds,
        )
        if expected.text or not expected.fault:
            assert answer.text == expected.text
        # Whatever it did, the next request finds its way.
        running.conduct = lambda request, body: Conduct.TAKE
        assert (await sender.send(running.url, REQUEST, 5.0)).status == 200
        assert len(running.receipts) == 2
        assert running.redirected == 0


@pytest.mark.parametrize("conduct", [Conduct.GIGABYTE, Conduct.GIGABYTE_500])
async def test_of_a_gigabyte_little_is_read(sender: Sender, conduct: Conduct) -> None:
    async with receiver(lambda request, body: conduct) as running:
        before = psutil.Process().memory_info().rss
        answers = await asyncio.gather(*(sender.send(running.url, REQUEST, 5.0) for _ in range(20)))
        assert {answer.status for answer in answers} == {200 if conduct is Conduct.GIGABYTE else 500}
        assert psutil.Process().memory_info().rss - before < 64 << 20


async def test_an_answer_that_does_not_end_counts_by_its_status(sender: Sender) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await sender.send(f"http://127.0.0.1:{port}/", REQUEST, TIMEOUT_SECONDS)
        assert answer.status == 200
        await sender.aclose()


async def test_nobody_listens(sender: Sender) -> None:
    (port,) = free_ports(1)
    answer = await sender.send(f"http://127.0.0.1:{port}/", REQUEST, TIMEOUT_SECONDS)
    assert answer.fault is Fault.CONNECTION


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_certificates(tmp_path, ["127.0.0.1"])
    async with receiver(tls=(files.certificate, files.key)) as running:
        trusting = Sender(
            LOOPBACK, ManualClock(), tls=ssl.create_default_context(cafile=str(files.authority))
        )
        strict = Sender(LOOPBACK, ManualClock())
        for each in (trusting, strict):
            await each.start()
        # As an operator does whose authority is their own.
        monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
        told = Sender(LOOPBACK, ManualClock())
        await told.start()
        assert (await told.send(running.url, REQUEST, 5.0)).status == 200
        running.receipts.clear()
        await told.aclose()
        assert (await trusting.send(running.url, REQUEST, 5.0)).status == 200
        # The certificate is for another name.
        other = running.url.replace("127.0.0.1", "localhost")
        assert (await trusting.send(other, REQUEST, 5.0)).fault is Fault.TLS
        assert (await strict.send(running.url, REQUEST, 5.0)).fault is Fault.TLS
        running.conduct = lambda request, body: Conduct.TLS
        assert (await trusting.send(running.url, REQUEST, 5.0)).fault is Fault.LOST
        assert (await trusting.send(running.url, REQUEST, 5.0)).fault is not None
        assert len(running.receipts) == 2
        for each in (trusting, strict):
            await each.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::1]", "[::]"])
async def test_this_machine_is_not_reached_unless_allowed(host: str) -> None:
    sender = Sender(AddressGuard(), ManualClock())
    await sender.start()
    async with receiver() as running:
        answer = await sender.send(f"http://{host}:{running.port}/", REQUEST, TIMEOUT_SECONDS)
        assert answer.fault is Fault.REFUSED
        assert running.receipts == []
        assert running.most_under_way == 0
    await sender.aclose()


async def test_a_name_that_leads_elsewhere_after_the_first_request_gains_nothing() -> None:
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    only_one = AddressGuard([ipaddress.ip_network("127.0.0.2/32")])
    sender = Sender(only_one, ManualClock(), names=names, name_seconds=0)
    await sender.start()
    async with receiver(lambda request, body: Conduct.CLOSE, host="127.0.0.2") as allowed:
        inner = Receiver()
        inner.port = allowed.port
        await inner.start(host="127.0.0.1")
        url = f"http://rebinding.example:{allowed.port}/"
        assert (await sender.send(url, REQUEST, TIMEOUT_SECONDS)).status == 200
        answer = await sender.send(url, REQUEST, TIMEOUT_SECONDS)
        assert answer.fault is Fault.REFUSED
        assert "127.0.0.1" not in answer.error
        assert names.lookups == 2
        assert inner.most_under_way == 0
        await inner.aclose()
    await sender.aclose()


async def test_of_several_addresses_of_a_name_only_allowed_ones_are_reached() -> None:
    only_one = AddressGuard([ipaddress.ip_network("127.0.0.2/32")])
    sender = Sender(only_one, ManualClock(), names=Names(["127.0.0.1", "127.0.0.2"]))
    await sender.start()
    async with receiver(host="127.0.0.2") as allowed:
        inner = Receiver()
        inner.port = allowed.port
        await inner.start(host="127.0.0.1")
        assert (await sender.send(f"http://a.example:{allowed.port}/", REQUEST, 2.0)).status == 200
        assert inner.most_under_way == 0
        await inner.aclose()
    await sender.aclose()


async def test_a_name_that_is_not_there(sender: Sender) -> None:
    answer = await sender.send("http://nowhere.invalid/", REQUEST, 10.0)
    assert answer.fault is Fault.NAME


async def test_a_url_that_is_none_is_not_repeated(sender: Sender) -> None:
    for url in ("http://", "http://user:secret@[/", "gopher://secret/"):
        answer = await sender.send(url, REQUEST, TIMEOUT_SECONDS)
        assert answer.fault is not None
        assert "secret" not in answer.error
