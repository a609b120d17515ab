"""A Node program, with `node:crypto` alone, verifies what the formats make and what the real server sends."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format

from roomtape.client import Client
from roomtape.v1 import event_pb2, room_pb2, task_pb2, webhook_pb2
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, Need, Request, SigningKey
from roomtape_service.webhooks.formats.table import format_of
from tests.client.media import tone, write
from tests.support.server import running_server
from tests.support.webhook_customers import READERS
from tests.support.webhook_events import APP_ID, TOLD, Told
from tests.support.webhook_requests import KEY, OTHER_KEY

pytestmark = pytest.mark.system

CLIENT = Path(__file__).parents[2] / "clients" / "node"
WAIT_SECONDS = 60
START_NS = 1_700_000_000_000_000_000

FORMATS = {
    "roomtape": webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE,
    "gme": webhook_pb2.WEBHOOK_FORMAT_GME,
    "trtc": webhook_pb2.WEBHOOK_FORMAT_TRTC,
    "trtc-classic": webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC,
    "volc": webhook_pb2.WEBHOOK_FORMAT_VOLC,
}
KEYS = dict.fromkeys(FORMATS, "Secret123") | {"roomtape": KEY}
OTHER_KEYS = dict.fromkeys(FORMATS, "Secret456") | {"roomtape": OTHER_KEY}


class Receiver:
    """The running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = ""

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return line

    async def webhook(self) -> tuple[Mapping[str, str], bytes]:
        """The next one that it took, with the names of its headers as they were sent."""
        line = await self.line()
        assert line["what"] == "webhook", line
        raw = line["headers"]
        return dict(zip(raw[::2], raw[1::2], strict=True)), line["body"].encode()


@asynccontextmanager
async def receiving(name: str, *keys: str) -> AsyncGenerator[Receiver, None]:
    """Runs the program for a format."""
    node = shutil.which("node")
    assert node is not None, "install Node 18 or newer"
    process = await asyncio.create_subprocess_exec(
        *(node, "webhooks.mjs", "--format", name),
        cwd=CLIENT,
        env={"PATH": os.environ["PATH"], "ROOMTAPE_WEBHOOK_KEY": " ".join(keys)},
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )
    receiver = Receiver(process)
    try:
        receiver.url = f"http://127.0.0.1:{(await receiver.line())['port']}/"
        yield receiver
    finally:
        process.kill()
        await process.wait()


def requests(name: str, told: Told, *keys: str, age_seconds: int = 0) -> list[Request]:
    format = format_of(FORMATS[name])
    if not format.knows(told.event.type):
        return []
    facts = None if format.needs(told.event.type) is Need.NOTHING else told.facts
    delivery = Delivery("delivery-1", time.time_ns() - age_seconds * 1_000_000_000)
    context = FormatContext(vendor_app_id=APP_ID, facts=facts)
    return list(format.requests(told.event, context, [SigningKey(key) for key in keys], delivery))


async def post(session: aiohttp.ClientSession, url: str, request: Request, body: bytes | None = None) -> int:
    async with session.post(url, data=body or request.body, headers=request.headers) as answer:
        return answer.status


@pytest.mark.parametrize("name", FORMATS)
async def test_it_takes_what_the_formats_make_and_nothing_else(name: str) -> None:
    key, other = KEYS[name], OTHER_KEYS[name]
    async with receiving(name, other, key) as receiver, aiohttp.ClientSession() as session:
        made = [each for told in TOLD.values() for each in requests(name, told, key)]
        assert made
        for each in made:
            assert await post(session, receiver.url, each) == 200
            assert (await receiver.webhook())[1] == each.body
        # While keys overlap, those of us who have one of them take what both have signed.
        (overlapping,) = requests(name, TOLD["segment uploaded"], other, key)
        assert await post(session, receiver.url, overlapping) == 200
        await receiver.webhook()
        strange = KEY.replace("a", "b") if name == "roomtape" else "Secret789"
        (forged,) = requests(name, TOLD["segment uploaded"], strange)
        assert await post(session, receiver.url, forged) == 401
        assert (await receiver.line())["what"] == "refused"
        if name in ("roomtape", "trtc-classic"):
            (old,) = requests(name, TOLD["segment uploaded"], key, age_seconds=3_600)
            assert await post(session, receiver.url, old) == 401
            assert "too old" in (await receiver.line())["why"]
        if name != "trtc-classic":
            (genuine,) = requests(name, TOLD["segment uploaded"], key)
            changed = genuine.body.replace(b"audio", b"AUDIO")
            assert await post(session, receiver.url, genuine, changed) == 401
            assert "no key" in (await receiver.line())["why"]


@pytest.mark.parametrize("name", FORMATS)
async def test_it_takes_what_the_server_sends_of_a_recording(name: str, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.ogg", "libopus", tone(440, 2))
    async with (
        running_server(
            tmp_path / "server",
            create_default_application=APP_ID,
            webhook_http="allow",
            webhook_allowed_networks="127.0.0.0/8",
        ) as server,
        receiving(name, KEYS[name]) as receiver,
        Client(server.target) as client,
    ):
        webhook = webhook_pb2.Webhook(
            app_id=APP_ID, url=receiver.url, format=FORMATS[name], string_room_ids=True
        )
        creation = webhook_pb2.CreateWebhookRequest(webhook=webhook)
        creation.key.value = KEYS[name]
        created = await client.webhooks.CreateWebhook(creation)
        await client.rooms.CreateRoom(
            room_pb2.CreateRoomRequest(app_id=APP_ID, room_id="100", clock=room_pb2.ROOM_CLOCK_MEDIA)
        )
        started = await client.recording.StartRecord(
            task_pb2.StartRecordRequest(
                app_id=APP_ID, room_id="100", mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED
            )
        )
        await client.publish_file(clip, APP_ID, "100", "ada", realtime=False, start_time_ns=START_NS)
        await client.recording.StopRecord(
            task_pb2.StopRecordRequest(app_id=APP_ID, task_id=started.task.task_id)
        )
        events = [event async for event in client.list_events(APP_ID, follow=True, filter=of(started.task))]
        try:
            if name == "roomtape":
                await expect_events(receiver, events, started.task.task_id)
            else:
                await expect_vendor_events(receiver, name)
        except TimeoutError:
            raise AssertionError(f"it did not come: {await waiting(client, created.webhook)}") from None


async def waiting(client: Client, webhook: webhook_pb2.Webhook) -> webhook_pb2.ListWebhookDeliveriesResponse:
    return await client.webhooks.ListWebhookDeliveries(
        webhook_pb2.ListWebhookDeliveriesRequest(app_id=webhook.app_id, webhook_id=webhook.webhook_id)
    )


def of(task: task_pb2.Task) -> event_pb2.EventFilter:
    return event_pb2.EventFilter(task_ids=[task.task_id])


async def expect_events(receiver: Receiver, events: list[event_pb2.Event], task_id: str) -> None:
    """All events of the task came, each once and in their order."""
    got: list[event_pb2.Event] = []
    while not got or got[-1].type != event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
        headers, body = await receiver.webhook()
        assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(headers)
        event = json_format.Parse(body, event_pb2.Event())
        if event.task_id == task_id:
            got.append(event)
    assert got == events


WANTED = {
    "gme": {"1": 2, "2": 2, "3": 2},
    "trtc": {"301": 1, "302": 1, "303": 1, "307": 2, "311": 2, "312": 1},
    "trtc-classic": {"100": 2},
    "volc": {"RecordStarted": 1, "RecordUploadStarted": 2, "RecordUploadDone": 2, "RecordStopped": 1},
}


async def expect_vendor_events(receiver: Receiver, name: str) -> None:
    """The vendor's events of a recording of one user and of the mix came, and its customers can read them."""
    got: dict[str, int] = {}
    last: Mapping[str, Any] = {}
    while any(got.get(each, 0) < count for each, count in WANTED[name].items()):
        headers, body = await receiver.webhook()
        signing = {
            each: headers[each]
            for each in headers
            if each in ("Content-Type", "Signature", "Sign", "SdkAppId")
        }
        told, last = READERS[name](signing, body, KEYS[name])
        got[told] = got.get(told, 0) + 1
    assert {each: got[each] for each in WANTED[name]} == WANTED[name]
    if name == "trtc":
        assert last["EventInfo"]["RoomId"] == "100"
    if name == "volc":
        assert len(last["RecordFileList"]) == 2
        assert all(each["Size"] > 0 for each in last["RecordFileList"])
