"""The node is killed around the commit of each call about webhooks: each has its effect once, and one answer."""

from pathlib import Path

from roomtape.client import Client, RetrySettings
from roomtape.v1 import webhook_pb2
from tests.faults.failpoint_file import FailpointFile
from tests.support.server import ServerProcess

APP = "app"
URL = "https://hooks.example.com/"
_PART_BYTES = 8 << 20
_PATIENT = RetrySettings(attempts=1000, max_seconds=1)


async def test_calls_about_webhooks_survive_kills_of_the_node(tmp_path: Path) -> None:
    failpoints = FailpointFile(tmp_path / "failpoints", _PART_BYTES)
    server = ServerProcess(tmp_path / "data", failpoints_file=str(failpoints.path), workers=1)
    await server.start()

    def kill_at(rpc: str) -> None:
        place = f"commit:rpc.webhooks.WebhookServicer.{rpc}.work"
        failpoints.arm({"name": place, "action": "kill"}, {"name": f"{place}:after", "action": "kill"})

    try:
        async with Client(server.target, retry=_PATIENT, timeout_seconds=300) as client:
            kill_at("CreateWebhook")
            wanted = webhook_pb2.Webhook(app_id=APP, url=URL, enabled=False)
            created = await client.webhooks.CreateWebhook(webhook_pb2.CreateWebhookRequest(webhook=wanted))
            assert created.key.value.startswith("whsec_")
            webhook_id = created.webhook.webhook_id
            listed = await client.webhooks.ListWebhooks(webhook_pb2.ListWebhooksRequest(app_id=APP))
            assert listed.webhooks == [created.webhook]

            kill_at("UpdateWebhook")
            named = webhook_pb2.Webhook(app_id=APP, webhook_id=webhook_id, display_name="named")
            updated = await client.webhooks.UpdateWebhook(webhook_pb2.UpdateWebhookRequest(webhook=named))
            assert (updated.webhook.display_name, updated.webhook.etag) == ("named", "r2")

            kill_at("RotateWebhookKey")
            rotated = await client.webhooks.RotateWebhookKey(
                webhook_pb2.RotateWebhookKeyRequest(app_id=APP, webhook_id=webhook_id)
            )
            assert len(rotated.webhook.keys) == 2
            assert rotated.key.value not in ("", created.key.value)
            get = webhook_pb2.GetWebhookRequest(app_id=APP, webhook_id=webhook_id)
            assert (await client.webhooks.GetWebhook(get)).webhook == rotated.webhook

            kill_at("ResendWebhookDeliveries")
            resent = await client.webhooks.ResendWebhookDeliveries(
                webhook_pb2.ResendWebhookDeliveriesRequest(app_id=APP, webhook_id=webhook_id)
            )
            assert resent.count == 0

            kill_at("DeleteWebhook")
            await client.webhooks.DeleteWebhook(
                webhook_pb2.DeleteWebhookRequest(app_id=APP, webhook_id=webhook_id)
            )
            listed = await client.webhooks.ListWebhooks(webhook_pb2.ListWebhooksRequest(app_id=APP))
            assert not listed.webhooks
    finally:
        await server.stop()
    calls = ("CreateWebhook", "UpdateWebhook", "RotateWebhookKey", "ResendWebhookDeliveries", "DeleteWebhook")
    assert failpoints.killed_at() == {
        f"commit:rpc.webhooks.WebhookServicer.{call}.work{after}"
        for call in calls
        for after in ("", ":after")
    }
