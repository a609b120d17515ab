"""Receivers to which nothing may be sent, and one that takes nothing."""

import asyncio
import socket
from pathlib import Path

import pytest

from roomtape.v1 import error_pb2, event_pb2, room_pb2, webhook_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database
from roomtape_service.webhooks.guard import AddressGuard
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.world import World
from tests.support.databases import APP, add_application, stored_events
from tests.support.receiver import Conduct, receiver
from tests.support.waiting import eventually
from tests.support.webhooks import add_webhook, append, delivering, settled

pytestmark = pytest.mark.asyncio(loop_scope="package")

HOUR_SECONDS = 3600


async def test_a_name_that_leads_to_this_machine_is_not_connected_to(world: World) -> None:
    host = socket.gethostname()
    addresses = {str(place[0]) for *_, place in socket.getaddrinfo(host, 443)}
    if any(AddressGuard().allows(address) for address in addresses):
        pytest.skip("this machine has a public address")
    client = world.client
    accepted: list[asyncio.StreamWriter] = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with await asyncio.start_server(accept, sorted(addresses), 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        webhook = webhook_pb2.Webhook(app_id="gme", url=f"https://{host}:{port}/")
        created = await client.webhooks.CreateWebhook(webhook_pb2.CreateWebhookRequest(webhook=webhook))
        await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="gme", room_id="for-its-event"))
        get = webhook_pb2.GetWebhookRequest(app_id="gme", webhook_id=created.webhook.webhook_id)

        async def has_failed() -> bool:
            return bool((await client.webhooks.GetWebhook(get)).webhook.status.last_error)

        await eventually(has_failed, "it was tried")
        status = (await client.webhooks.GetWebhook(get)).webhook.status
        assert "address" in status.last_error
        assert status.pending_count >= 1
        assert accepted == []
        await client.webhooks.DeleteWebhook(
            webhook_pb2.DeleteWebhookRequest(app_id="gme", webhook_id=created.webhook.webhook_id)
        )


@tells("WEBHOOK_FAILING")
async def test_the_owner_of_a_receiver_that_takes_nothing_is_told(tmp_path: Path) -> None:
    clock = ManualClock()
    database = Database(f"sqlite:///{tmp_path}/failing.db", clock)
    await database.open()
    await add_application(database, APP)
    async with (
        receiver(lambda request, body: Conduct.FAIL) as running,
        delivering(database, clock) as sending,
    ):
        await add_webhook(database, running.url)
        await append(database, ("", "an event"))
        for _ in range(HOUR_SECONDS // 60):
            clock.advance(60)
            sending.wake()
            await settled(sending)
    told = [event for event in await stored_events(database) if event.warning.reason]
    assert [event.warning.reason for event in told] == [error_pb2.ERROR_REASON_WEBHOOK_FAILING]
    assert told[0].type == event_pb2.EVENT_TYPE_WARNING
    assert "HTTP 500" in told[0].warning.message
    await database.aclose()
