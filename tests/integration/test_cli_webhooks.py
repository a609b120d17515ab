"""`roomtape webhooks` as people and scripts use it, against the real service and a receiver of its own."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from roomtape_service.cli.calling import ExitCode
from tests.integration.test_cli import Commands
from tests.support.server import running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "https://hooks.example.com/events"
KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def roomtape(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Commands]:
    folder = tmp_path_factory.mktemp("cli-webhooks") / "data"
    async with running_server(
        folder, webhook_http="allow", webhook_allowed_networks="127.0.0.0/8", workers=1
    ) as server:
        yield Commands(server.target)


async def test_events_reach_a_receiver_and_are_sent_again(roomtape: Commands, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    listening = await roomtape.start(
        "webhooks", "listen", "--listen", "0", "--key-file", str(key_file), "--json", "--count", "3"
    )
    assert listening.stdout is not None
    url = json.loads(await listening.stdout.readline())["listening"]
    create = ["webhooks", "create", f"{url}/hook", "--key-file", str(key_file), "--room", "hooked"]
    created = (await roomtape(*create, "--name", "Mine", "--json")).one()
    webhook, key = created["webhook"], created["key"]
    assert isinstance(webhook, dict)
    assert key == {"value": KEY, "isSet": True}
    webhook_id = str(webhook["webhookId"])
    await roomtape("rooms", "create", "other")
    await roomtape("rooms", "create", "hooked")
    first = json.loads(await listening.stdout.readline())
    assert (first["type"], first["roomId"]) == ("EVENT_TYPE_ROOM_CREATED", "hooked")
    delivered = ["webhooks", "deliveries", webhook_id, "--state", "delivered"]
    async with asyncio.timeout(20):
        # The receiver has it before the server has stored that it has.
        while not (lines := (await roomtape(*delivered, "--json")).json()):
            pass
    assert [line["attempts"] for line in lines] == [1]
    delivery_id = str(lines[0]["deliveryId"])
    assert delivery_id in (await roomtape(*delivered)).out
    resent = (await roomtape("webhooks", "resend", webhook_id, delivery_id, "--json")).one()
    assert resent == {"count": 1}
    await roomtape("rooms", "close", "hooked")
    # The listener takes what it has for granted, and shows only what is new.
    second = json.loads(await listening.stdout.readline())
    assert second["type"] == "EVENT_TYPE_ROOM_CLOSED"
    listening.terminate()
    await roomtape.end(listening)


async def test_webhooks_are_made_changed_and_deleted(roomtape: Commands, tmp_path: Path) -> None:
    shown = await roomtape("webhooks", "create", URL, "--type", "task-stopped", "--label", "a=b", "--disable")
    assert shown.code == ExitCode.DONE
    assert "key: whsec_" in shown.out
    assert "disabled" in shown.out
    listed = (await roomtape("webhooks", "list", "--json")).json()
    [webhook] = [each for each in listed if each["url"] == URL]
    assert webhook["filter"] == {"types": ["EVENT_TYPE_TASK_STOPPED"], "labels": {"a": "b"}}
    assert "enabled" in webhook
    webhook_id = str(webhook["webhookId"])
    update = ["webhooks", "update", webhook_id, "--json"]
    changed = (await roomtape(*update, "--enable", "--all-events", "--etag", str(webhook["etag"]))).one()
    assert (changed["enabled"], changed["filter"]) == (True, {})
    stale = await roomtape(*update[:-1], "--name", "x", "--etag", str(webhook["etag"]))
    assert "ETAG_MISMATCH" in stale.err
    saved = tmp_path / "saved"
    rotate = ["webhooks", "rotate-key", webhook_id, "--overlap", "1h", "--save-key", str(saved)]
    rotated = await roomtape(*rotate)
    assert saved.read_text().startswith("whsec_")
    assert saved.read_text().strip() not in rotated.out + rotated.err
    assert saved.stat().st_mode & 0o777 == 0o600
    again = await roomtape(*rotate)
    assert "the key would be lost" in again.err
    assert (await roomtape("webhooks", "resend", webhook_id)).out == "0 deliveries are queued again\n"
    assert (await roomtape("webhooks", "delete", webhook_id)).code == ExitCode.DONE
    gone = await roomtape("webhooks", "get", webhook_id)
    assert (gone.code, "WEBHOOK_NOT_FOUND" in gone.err) == (ExitCode.FAILED, True)


async def test_refusals_say_which_field(roomtape: Commands, tmp_path: Path) -> None:
    private = await roomtape("webhooks", "create", "https://10.0.0.1/")
    assert private.code == ExitCode.FAILED
    assert "(INVALID_WEBHOOK_URL, field webhook.url, request " in private.err
    (tmp_path / "short").write_text("whsec_short")
    short = await roomtape("webhooks", "create", URL, "--key-file", str(tmp_path / "short"))
    assert "INVALID_WEBHOOK_KEY" in short.err
    assert "whsec_short" not in short.err
    vendor = await roomtape("webhooks", "create", URL, "--format", "gme")
    assert "field webhook.vendor_app_id" in vendor.err
    unknown = await roomtape("webhooks", "create", URL, "--format", "smoke")
    assert unknown.code == ExitCode.USAGE
