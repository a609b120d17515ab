"""A running WebhookService for tests, without anything that sends."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import aio

from roomtape.v1 import storage_pb2, webhook_pb2, webhook_pb2_grpc
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database
from roomtape_service.database.webhooks import KeyRow, find, keys_of
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.server import RpcServer
from roomtape_service.rpc.webhook_messages import UrlPolicy
from roomtape_service.rpc.webhooks import WebhookServicer
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.webhooks.guard import AddressGuard
from roomtape_service.webhooks.keys import key_binding
from tests.support.databases import APP
from tests.support.edge import details_of, settings_of

__all__ = ["LIMIT", "URL", "WebhookCalls", "refused", "webhook_calls"]

URL = "https://hooks.example.com/events"
LIMIT = 3
"""Webhooks that an application may have."""


@dataclass
class WebhookCalls:
    """Calls a running service; `key` is the API key of each call."""

    stub: "webhook_pb2_grpc.WebhookServiceAsyncStub"
    database: Database
    secret_box: SecretBox
    clock: ManualClock
    key: str = ""

    async def create(
        self,
        webhook: webhook_pb2.Webhook | None = None,
        *,
        app_id: str = APP,
        key: str = "",
        request_id: str = "",
    ) -> webhook_pb2.CreateWebhookResponse:
        """Creates a webhook, by default with URL `URL` and no more."""
        wanted = webhook or webhook_pb2.Webhook(url=URL)
        wanted.app_id = wanted.app_id or app_id
        request = webhook_pb2.CreateWebhookRequest(webhook=wanted, request_id=request_id)
        if key:
            request.key.CopyFrom(storage_pb2.Secret(value=key))
        return await self.stub.CreateWebhook(request, metadata=self._metadata())

    async def get(self, webhook_id: str, *, app_id: str = APP) -> webhook_pb2.Webhook:
        request = webhook_pb2.GetWebhookRequest(app_id=app_id, webhook_id=webhook_id)
        return (await self.stub.GetWebhook(request, metadata=self._metadata())).webhook

    async def update(
        self, webhook: webhook_pb2.Webhook, *paths: str, request_id: str = ""
    ) -> webhook_pb2.Webhook:
        request = webhook_pb2.UpdateWebhookRequest(
            webhook=webhook, update_mask=FieldMask(paths=paths) if paths else None, request_id=request_id
        )
        return (await self.stub.UpdateWebhook(request, metadata=self._metadata())).webhook

    async def enable(self, webhook_id: str, enabled: bool) -> webhook_pb2.Webhook:
        return await self.update(
            webhook_pb2.Webhook(app_id=APP, webhook_id=webhook_id, enabled=enabled), "enabled"
        )

    async def delete(self, webhook_id: str, *, app_id: str = APP, request_id: str = "") -> None:
        request = webhook_pb2.DeleteWebhookRequest(
            app_id=app_id, webhook_id=webhook_id, request_id=request_id
        )
        await self.stub.DeleteWebhook(request, metadata=self._metadata())

    async def list(
        self, *, app_id: str = APP, page_size: int = 0, page_token: str = ""
    ) -> webhook_pb2.ListWebhooksResponse:
        request = webhook_pb2.ListWebhooksRequest(app_id=app_id, page_size=page_size, page_token=page_token)
        return await self.stub.ListWebhooks(request, metadata=self._metadata())

    async def rotate(
        self,
        webhook_id: str,
        *,
        app_id: str = APP,
        overlap: Duration | None = None,
        key: str = "",
        request_id: str = "",
    ) -> webhook_pb2.RotateWebhookKeyResponse:
        request = webhook_pb2.RotateWebhookKeyRequest(
            app_id=app_id, webhook_id=webhook_id, overlap=overlap, request_id=request_id
        )
        if key:
            request.key.CopyFrom(storage_pb2.Secret(value=key))
        return await self.stub.RotateWebhookKey(request, metadata=self._metadata())

    async def deliveries(
        self,
        webhook_id: str,
        *states: webhook_pb2.WebhookDeliveryState.ValueType,
        app_id: str = APP,
        task_id: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> webhook_pb2.ListWebhookDeliveriesResponse:
        request = webhook_pb2.ListWebhookDeliveriesRequest(
            app_id=app_id,
            webhook_id=webhook_id,
            states=states,
            task_id=task_id,
            page_size=page_size,
            page_token=page_token,
        )
        return await self.stub.ListWebhookDeliveries(request, metadata=self._metadata())

    async def resend(
        self, webhook_id: str, *delivery_ids: str, app_id: str = APP, request_id: str = ""
    ) -> webhook_pb2.ResendWebhookDeliveriesResponse:
        request = webhook_pb2.ResendWebhookDeliveriesRequest(
            app_id=app_id, webhook_id=webhook_id, delivery_ids=delivery_ids, request_id=request_id
        )
        return await self.stub.ResendWebhookDeliveries(request, metadata=self._metadata())

    async def signing_keys(self, webhook_id: str) -> Sequence[str]:
        """The keys that requests are signed with now, newest first, in clear."""
        found = await self.database.read(
            lambda connection: keys_of(connection, [webhook_id], self.clock.now_ns())
        )
        return [self._open(key) for key in found[webhook_id]]

    async def is_there(self, webhook_id: str) -> bool:
        """Whether the webhook has a row that was not deleted."""
        return await self.database.read(lambda connection: find(connection, webhook_id)) is not None

    def _open(self, key: KeyRow) -> str:
        return self.secret_box.open_text(APP, key_binding(key.webhook_id, key.key_id), key.value)

    def _metadata(self) -> tuple[tuple[str, str], ...] | None:
        return (("authorization", f"Bearer {self.key}"),) if self.key else None


@asynccontextmanager
async def webhook_calls(
    database: Database, folder: Path, clock: ManualClock, **settings: object
) -> AsyncIterator[WebhookCalls]:
    """The service on a database; 127.0.0.0/8 is allowed, and http."""
    secret_box = SecretBox(bytes(32))
    guard = AddressGuard([ip_network("127.0.0.0/8")])
    servicer = WebhookServicer(
        database,
        secret_box,
        clock,
        CountedIds(),
        UrlPolicy(http=True, allows=guard.allows),
        webhooks_per_application=LIMIT,
    )
    server = RpcServer(
        settings_of(folder, **settings),
        [partial(webhook_pb2_grpc.add_WebhookServiceServicer_to_server, servicer)],
        [],
        clock,
        CountedIds(),
    )
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield WebhookCalls(webhook_pb2_grpc.WebhookServiceStub(channel), database, secret_box, clock)
    finally:
        await server.aclose()


async def refused(call: Awaitable[object]) -> tuple[str, ...]:
    """The reason of the refusal that the call ends with, and the fields at fault."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    details = details_of(caught.value)
    bad = details.get("BadRequest")
    fields = [each.field for each in bad.field_violations] if bad is not None else []
    return (details["ErrorInfo"].reason, *fields)
