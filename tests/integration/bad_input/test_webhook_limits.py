"""As many webhooks, and as many keys of one, as there may be."""

import pytest

from roomtape.v1 import application_pb2, webhook_pb2
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.webhook_cases import URL
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

WEBHOOKS = 32
KEYS = 5
APP = "webhook-limits"


@covers("WebhookService.CreateWebhook", "TOO_MANY_WEBHOOKS")
@covers("WebhookService.RotateWebhookKey", "TOO_MANY_WEBHOOK_KEYS")
async def test_one_more_is_refused(world: World) -> None:
    client = world.client
    application = application_pb2.Application(app_id=APP)
    await client.applications.CreateApplication(
        application_pb2.CreateApplicationRequest(application=application)
    )
    create = webhook_pb2.CreateWebhookRequest(webhook=webhook_pb2.Webhook(app_id=APP, url=URL))
    created = [(await client.webhooks.CreateWebhook(create)).webhook for _ in range(WEBHOOKS)]
    async with world.unchanged():
        refused = await world.refused("WebhookService.CreateWebhook", create)
    limit = {"appId": APP, "limit": str(WEBHOOKS)}
    Expected("TOO_MANY_WEBHOOKS", metadata=limit).check(refused)
    webhook_id = created[-1].webhook_id
    rotate = webhook_pb2.RotateWebhookKeyRequest(app_id=APP, webhook_id=webhook_id)
    rotated = [(await client.webhooks.RotateWebhookKey(rotate)).webhook for _ in range(KEYS - 1)]
    refused = await world.refused("WebhookService.RotateWebhookKey", rotate)
    Expected("TOO_MANY_WEBHOOK_KEYS", metadata={"webhookId": webhook_id}).check(refused)
    kept = await client.webhooks.GetWebhook(webhook_pb2.GetWebhookRequest(app_id=APP, webhook_id=webhook_id))
    assert kept.webhook.keys == rotated[-1].keys
