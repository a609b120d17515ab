"""`roomtape webhooks listen` as people and scripts use it: a process that gets requests as the service makes them."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from roomtape.v1 import webhook_pb2
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, Need, Request, SigningKey
from roomtape_service.webhooks.formats.table import format_of
from tests.support.webhook_events import APP_ID, TOLD
from tests.support.webhook_requests import KEY, OTHER_KEY

WAIT_SECONDS = 30.0
VENDORS = {
    "gme": webhook_pb2.WEBHOOK_FORMAT_GME,
    "trtc": webhook_pb2.WEBHOOK_FORMAT_TRTC,
    "trtc-classic": webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC,
    "volc": webhook_pb2.WEBHOOK_FORMAT_VOLC,
}


class Listening:
    """The running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def refusal(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.readline()).decode().rstrip("\n")

    async def post(self, request: Request, **changed: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.url}/any", data=request.body, headers={**request.headers, **changed}
            ) as answer,
        ):
            return answer.status, await answer.text()


@asynccontextmanager
async def listening(*arguments: str, **environment: str) -> AsyncGenerator[Listening, None]:
    """The command with --json on a free port, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "roomtape_service.cli.main", "webhooks", "listen"),
        *("--listen", "0", *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    command = Listening(process)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            if "--json" in arguments:
                command.url = json.loads(await command.line())["listening"]
            else:
                command.url = (await command.refusal()).split()[2].rstrip(",")
            assert command.url.startswith("http://127.0.0.1:")
            yield command
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def request(
    what: str,
    kind: webhook_pb2.WebhookFormat.ValueType,
    *keys: str,
    webhook_id: str = "delivery-1",
    age_seconds: int = 0,
) -> Request:
    told = TOLD[what]
    format = format_of(kind)
    facts = None if format.needs(told.event.type) is Need.NOTHING else told.facts
    (made,) = format.requests(
        told.event,
        FormatContext(vendor_app_id=APP_ID, facts=facts),
        [SigningKey(key) for key in keys],
        Delivery(webhook_id, time.time_ns() - age_seconds * 1_000_000_000),
    )
    return made


async def test_it_shows_each_genuine_event_once_for_programs() -> None:
    kind = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE
    async with listening("--json", ROOMTAPE_WEBHOOK_KEY=f"{KEY} {OTHER_KEY}") as command:
        for key in (KEY, OTHER_KEY, KEY):
            assert (await command.post(request("segment uploaded", kind, key)))[0] == 204
        assert (await command.post(request("gap", kind, KEY, webhook_id="delivery-2")))[0] == 204
        assert json.loads(await command.line())["type"] == "EVENT_TYPE_SEGMENT_UPLOADED"
        assert json.loads(await command.line())["type"] == "EVENT_TYPE_GAP"
        strange = "whsec_" + "QUJD" * 8
        assert (await command.post(request("gap", kind, strange)))[0] == 401
        assert "known key" in json.loads(await command.refusal())["error"]["message"]
        assert (await command.post(request("gap", kind, KEY, age_seconds=3_600)))[0] == 400
        assert "ago" in json.loads(await command.refusal())["error"]["message"]
        command.process.send_signal(signal.SIGINT)
        assert await command.process.wait() == 0


async def test_it_shows_lines_for_people() -> None:
    kind = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE
    async with listening("--count", "1", ROOMTAPE_WEBHOOK_KEY=KEY) as command:
        assert (await command.post(request("segment uploaded", kind, KEY)))[0] == 204
        line = await command.line()
        assert "segment-uploaded" in line
        assert TOLD["segment uploaded"].event.segment.segment.url in line
        assert await command.process.wait() == 0


@pytest.mark.parametrize("name", VENDORS)
async def test_it_verifies_the_vendors_formats(name: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("Secret1\n")
    async with listening("--json", "--format", name, "--key-file", str(key_file)) as command:
        genuine = request("segment uploaded", VENDORS[name], "Secret1")
        status, text = await command.post(genuine)
        assert (status, json.loads(text)) == (200, {"code": 0})
        shown: Mapping[str, object] = json.loads(await command.line())
        assert shown == json.loads(genuine.body)
        assert (await command.post(request("segment uploaded", VENDORS[name], "Secret2")))[0] == 401
        assert "no key that is known" in json.loads(await command.refusal())["error"]["message"]
        for body in (b"", b"[]", b"{}", b'{"t":"x"}'):
            assert (await command.post(Request({"Content-Type": "application/json"}, body)))[0] == 401
            assert "error" in json.loads(await command.refusal())
        late = request("segment uploaded", VENDORS[name], "Secret1", age_seconds=3_600)
        assert (await command.post(late))[0] == (401 if name == "trtc-classic" else 200)


@pytest.mark.parametrize(
    ("arguments", "key", "code", "says"),
    [
        ([], "", 1, "ROOMTAPE_WEBHOOK_KEY"),
        ([], "secret", 1, "whsec_"),
        (["--format", "trtc"], KEY, 1, "letters and digits"),
        (["--format", "morse"], KEY, 2, "morse"),
        (["--listen", "localhost:http"], KEY, 2, "port"),
        (["--key-file", "/nowhere/key"], "", 1, "/nowhere/key"),
    ],
)
async def test_it_says_what_it_lacks(arguments: list[str], key: str, code: int, says: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "roomtape_service.cli.main", "webhooks", "listen", *arguments),
        env={**os.environ, "ROOMTAPE_WEBHOOK_KEY": key},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == code
    assert says in errors.decode()
