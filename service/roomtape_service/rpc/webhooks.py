"""WebhookService: who gets an application's events by HTTP, and what became of them."""

import secrets
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, webhook_pb2, webhook_pb2_grpc
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, deliveries
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.database import Database
from roomtape_service.database.deliveries import Standing
from roomtape_service.database.orders import Order
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.errors import Refusal
from roomtape_service.ids import Ids
from roomtape_service.rpc import validation
from roomtape_service.rpc import webhook_messages as messages
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.paging import read_page, write_token
from roomtape_service.rpc.webhook_messages import UrlPolicy
from roomtape_service.storage.secrets import SecretBox, SecretKeyError
from roomtape_service.webhooks.formats.table import format_of
from roomtape_service.webhooks.keys import key_binding

__all__ = ["WebhookServicer"]

MAX_KEYS = 5
"""Keys that a webhook may have at once: each makes every request a little longer."""

_DEFAULT_OVERLAP_NS = 24 * 3600 * NANOSECONDS
_MAX_OVERLAP_SECONDS = 7 * 24 * 3600
_MAX_RESENT = 1_000
_DEFAULT_STATES = (
    webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING,
    webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD,
)

_KeyReply = TypeVar("_KeyReply", webhook_pb2.CreateWebhookResponse, webhook_pb2.RotateWebhookKeyResponse)


class WebhookServicer(webhook_pb2_grpc.WebhookServiceServicer):
    """See the contract for what each call does and refuses."""

    def __init__(
        self,
        database: Database,
        secret_box: SecretBox,
        clock: Clock,
        ids: Ids,
        policy: UrlPolicy,
        *,
        webhooks_per_application: int,
    ) -> None:
        self._database = database
        self._secrets = secret_box
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._limit = webhooks_per_application

    async def CreateWebhook(
        self, request: webhook_pb2.CreateWebhookRequest, context: Context
    ) -> webhook_pb2.CreateWebhookResponse:
        wanted = request.webhook
        validation.refuse(validation.present(request.HasField("webhook"), "webhook", "the webhook to create"))
        validation.refuse(
            *messages.field_problems(wanted),
            messages.url_problem_of(wanted.url, self._policy),
            validation.request_id(request.request_id),
        )
        row = messages.new_webhook(wanted, self._ids.token())
        validation.refuse(
            messages.vendor_app_id_problem(row.vendor_app_id, row.app_id, row.format),
            messages.key_problem(request.key, row.format),
        )
        order = Order(
            row.app_id, request.request_id, "CreateWebhook", request, webhook_pb2.CreateWebhookResponse
        )

        async def work(uow: UnitOfWork) -> webhook_pb2.CreateWebhookResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return self._opened(order, earlier)
            await applications.get(uow.connection, row.app_id)
            await self._require_room(uow.connection, row.app_id)
            stored = await webhook_rows.add(uow, row)
            value = request.key.value or self._new_key(stored)
            key = self._key(uow, stored, value, number=1)
            await webhook_rows.add_first_key(uow, key)
            reply = webhook_pb2.CreateWebhookResponse(
                webhook=messages.webhook_message(stored, [key], Standing())
            )
            return await self._keep(uow, order, reply, value)

        return await self._database.write(work)

    async def GetWebhook(
        self, request: webhook_pb2.GetWebhookRequest, context: Context
    ) -> webhook_pb2.GetWebhookResponse:
        validation.refuse(*_which(request.app_id, request.webhook_id))

        async def read(connection: AsyncConnection) -> webhook_pb2.Webhook:
            row = await webhook_rows.get(connection, request.app_id, request.webhook_id)
            return (await self._shown(connection, [row]))[0]

        return webhook_pb2.GetWebhookResponse(webhook=await self._database.scan(read))

    async def UpdateWebhook(
        self, request: webhook_pb2.UpdateWebhookRequest, context: Context
    ) -> webhook_pb2.UpdateWebhookResponse:
        wanted = request.webhook
        validation.refuse(validation.present(request.HasField("webhook"), "webhook", "the values to change"))
        paths = frozenset(request.update_mask.paths) or messages.paths_set(wanted)
        validation.refuse(
            *messages.field_problems(wanted),
            validation.webhook_id(wanted.webhook_id, "webhook.webhook_id"),
            messages.url_problem_of(wanted.url, self._policy) if "url" in paths else None,
            validation.update_mask(request.update_mask, messages.CHANGEABLE_PATHS),
            validation.request_id(request.request_id),
        )
        order = Order(
            wanted.app_id, request.request_id, "UpdateWebhook", request, webhook_pb2.UpdateWebhookResponse
        )
        standing = await self._standing(wanted.webhook_id)

        async def work(uow: UnitOfWork) -> webhook_pb2.UpdateWebhookResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return earlier
            stored = await webhook_rows.get(uow.connection, wanted.app_id, wanted.webhook_id)
            _require_etag(wanted, stored)
            changed = messages.changed(stored, wanted, paths)
            validation.refuse(
                messages.vendor_app_id_problem(changed.vendor_app_id, changed.app_id, changed.format)
            )
            if changed != stored:
                changed = await webhook_rows.change(uow, changed, was_enabled=stored.is_enabled)
            keys = await self._keys(uow.connection, changed)
            shown = messages.webhook_message(changed, keys, standing)
            return await order.keep(uow, webhook_pb2.UpdateWebhookResponse(webhook=shown))

        return await self._database.write(work)

    async def DeleteWebhook(
        self, request: webhook_pb2.DeleteWebhookRequest, context: Context
    ) -> webhook_pb2.DeleteWebhookResponse:
        validation.refuse(
            *_which(request.app_id, request.webhook_id), validation.request_id(request.request_id)
        )
        order = Order(
            request.app_id, request.request_id, "DeleteWebhook", request, webhook_pb2.DeleteWebhookResponse
        )

        async def work(uow: UnitOfWork) -> webhook_pb2.DeleteWebhookResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return earlier
            stored = await webhook_rows.get(uow.connection, request.app_id, request.webhook_id)
            await webhook_rows.mark_deleted(uow, stored)
            return await order.keep(uow, webhook_pb2.DeleteWebhookResponse())

        return await self._database.write(work)

    async def ListWebhooks(
        self, request: webhook_pb2.ListWebhooksRequest, context: Context
    ) -> webhook_pb2.ListWebhooksResponse:
        validation.refuse(validation.app_id(request.app_id))
        size, place = read_page(request)
        after = (int(place[0]), str(place[1])) if place else None

        async def read(connection: AsyncConnection) -> webhook_pb2.ListWebhooksResponse:
            await applications.get(connection, request.app_id)
            rows = await webhook_rows.page(connection, request.app_id, after, size + 1)
            response = webhook_pb2.ListWebhooksResponse(webhooks=await self._shown(connection, rows[:size]))
            if len(rows) > size:
                last = rows[size - 1]
                response.next_page_token = write_token(request, (last.create_ns, last.webhook_id))
            return response

        return await self._database.scan(read)

    async def RotateWebhookKey(
        self, request: webhook_pb2.RotateWebhookKeyRequest, context: Context
    ) -> webhook_pb2.RotateWebhookKeyResponse:
        overlap = request.overlap if request.HasField("overlap") else None
        validation.refuse(
            *_which(request.app_id, request.webhook_id),
            validation.duration(overlap, "overlap", least_seconds=0, most_seconds=_MAX_OVERLAP_SECONDS),
            validation.request_id(request.request_id),
        )
        overlap_ns = _DEFAULT_OVERLAP_NS if overlap is None else overlap.ToNanoseconds()
        order = Order(
            request.app_id,
            request.request_id,
            "RotateWebhookKey",
            request,
            webhook_pb2.RotateWebhookKeyResponse,
        )
        standing = await self._standing(request.webhook_id)

        async def work(uow: UnitOfWork) -> webhook_pb2.RotateWebhookKeyResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return self._opened(order, earlier)
            stored = await webhook_rows.get(uow.connection, request.app_id, request.webhook_id)
            validation.refuse(messages.key_problem(request.key, stored.format))
            keys = await self._keys(uow.connection, stored)
            if overlap_ns and len(keys) >= MAX_KEYS:
                raise _too_many_keys(stored, len(keys))
            value = request.key.value or self._new_key(stored)
            key = self._key(uow, stored, value, number=keys[0].number + 1)
            stored = await webhook_rows.add_key(uow, stored, key, others_end_ns=uow.now_ns + overlap_ns)
            keys = await self._keys(uow.connection, stored)
            shown = messages.webhook_message(stored, keys, standing)
            return await self._keep(uow, order, webhook_pb2.RotateWebhookKeyResponse(webhook=shown), value)

        return await self._database.write(work)

    async def ListWebhookDeliveries(
        self, request: webhook_pb2.ListWebhookDeliveriesRequest, context: Context
    ) -> webhook_pb2.ListWebhookDeliveriesResponse:
        validation.refuse(
            *_which(request.app_id, request.webhook_id),
            *(
                validation.enum(state, webhook_pb2.WebhookDeliveryState, f"states[{index}]", required=True)
                for index, state in enumerate(request.states)
            ),
            validation.task_id(request.task_id, required=False),
        )
        size, place = read_page(request)
        after = int(place[0]) if place else 0

        async def read(connection: AsyncConnection) -> Sequence[deliveries.DeliveryRow]:
            row = await webhook_rows.get(connection, request.app_id, request.webhook_id)
            return await deliveries.page(
                connection,
                row.webhook_id,
                frozenset(request.states or _DEFAULT_STATES),
                task_id=request.task_id,
                after=after,
                limit=size + 1,
            )

        rows = await self._database.scan(read)
        response = webhook_pb2.ListWebhookDeliveriesResponse(
            deliveries=[messages.delivery_message(row) for row in rows[:size]]
        )
        if len(rows) > size:
            response.next_page_token = write_token(request, (rows[size - 1].sequence,))
        return response

    async def ResendWebhookDeliveries(
        self, request: webhook_pb2.ResendWebhookDeliveriesRequest, context: Context
    ) -> webhook_pb2.ResendWebhookDeliveriesResponse:
        validation.refuse(
            *_which(request.app_id, request.webhook_id),
            _delivery_ids(request.delivery_ids),
            validation.request_id(request.request_id),
        )
        order = Order(
            request.app_id,
            request.request_id,
            "ResendWebhookDeliveries",
            request,
            webhook_pb2.ResendWebhookDeliveriesResponse,
        )
        dead = (await self._standing(request.webhook_id)).dead

        async def work(uow: UnitOfWork) -> webhook_pb2.ResendWebhookDeliveriesResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return earlier
            stored = await webhook_rows.get(uow.connection, request.app_id, request.webhook_id)
            if request.delivery_ids:
                resent = await deliveries.resend(uow, stored, request.delivery_ids)
            else:
                resent = await deliveries.resend_dead(uow, stored, _MAX_RESENT)
            left = max(0, dead - resent.dead)
            reply = webhook_pb2.ResendWebhookDeliveriesResponse(count=resent.count, dead_count=left)
            return await order.keep(uow, reply)

        return await self._database.write(work)

    async def _shown(
        self, connection: AsyncConnection, rows: Sequence[WebhookRow]
    ) -> Sequence[webhook_pb2.Webhook]:
        ids = [row.webhook_id for row in rows]
        keys = await webhook_rows.keys_of(connection, ids, self._clock.now_ns())
        standings = await deliveries.standings(connection, ids)
        return [
            messages.webhook_message(row, keys[row.webhook_id], standings[row.webhook_id]) for row in rows
        ]

    async def _standing(self, webhook_id: str) -> Standing:
        """Where a webhook stands, before a unit that need not wait then for the counting of a long queue."""
        found = await self._database.scan(lambda connection: deliveries.standings(connection, [webhook_id]))
        return found[webhook_id]

    async def _keys(self, connection: AsyncConnection, row: WebhookRow) -> Sequence[KeyRow]:
        found = await webhook_rows.keys_of(connection, [row.webhook_id], self._clock.now_ns())
        return found[row.webhook_id]

    async def _require_room(self, connection: AsyncConnection, app_id: str) -> None:
        if await webhook_rows.count(connection, app_id) < self._limit:
            return
        raise Refusal(
            error_pb2.ERROR_REASON_TOO_MANY_WEBHOOKS,
            f"The application {app_id!r} has {self._limit} webhooks, as many as it may; delete one, or widen "
            "the filter of another.",
            metadata={"appId": app_id, "limit": str(self._limit)},
        )

    def _new_key(self, row: WebhookRow) -> str:
        return format_of(row.format).make_key(secrets.token_bytes)

    def _key(self, uow: UnitOfWork, row: WebhookRow, value: str, number: int) -> KeyRow:
        key_id = self._ids.token()
        return KeyRow(
            webhook_id=row.webhook_id,
            number=number,
            key_id=key_id,
            value=self._secrets.seal_text(row.app_id, key_binding(row.webhook_id, key_id), value),
            create_ns=uow.now_ns,
        )

    async def _keep(
        self, uow: UnitOfWork, order: Order[_KeyReply], reply: _KeyReply, value: str
    ) -> _KeyReply:
        """The reply with the key in clear; the one that is stored has it encrypted."""
        reply.key.is_set = True
        if order.request_id:
            reply.key.value = self._secrets.seal_text(order.app_id, _reply_name(order.request_id), value)
            await order.keep(uow, reply)
        reply.key.value = value
        return reply

    def _opened(self, order: Order[_KeyReply], reply: _KeyReply) -> _KeyReply:
        """The reply with its key in clear, or without it where the secret key is another one by now."""
        try:
            reply.key.value = self._secrets.open_text(
                order.app_id, _reply_name(order.request_id), reply.key.value
            )
        except SecretKeyError:
            reply.key.value = ""
        return reply


def _which(app_id: str, webhook_id: str) -> Sequence[validation.Problem | None]:
    return validation.app_id(app_id), validation.webhook_id(webhook_id)


def _delivery_ids(values: Sequence[str]) -> validation.Problem | None:
    if len(values) > _MAX_RESENT:
        return validation.Problem(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "delivery_ids",
            f"has {len(values)} entries; at most {_MAX_RESENT} fit",
            {"count": str(len(values)), "limit": str(_MAX_RESENT)},
        )
    for index, value in enumerate(values):
        if (problem := validation.delivery_id(value, f"delivery_ids[{index}]")) is not None:
            return problem
    return None


def _require_etag(wanted: webhook_pb2.Webhook, stored: WebhookRow) -> None:
    current = messages.etag(stored)
    if wanted.etag and wanted.etag != current:
        raise Refusal(
            error_pb2.ERROR_REASON_ETAG_MISMATCH,
            f"The webhook {stored.webhook_id!r} was changed since it was read; read it again.",
            metadata={"webhookId": stored.webhook_id, "etag": current},
        )


def _too_many_keys(row: WebhookRow, count: int) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_TOO_MANY_WEBHOOK_KEYS,
        f"The webhook {row.webhook_id!r} has {count} keys that have not ended, as many as it may; wait for one to end, "
        "or end them now by an overlap of 0.",
        metadata={"webhookId": row.webhook_id, "count": str(count), "limit": str(MAX_KEYS)},
    )


def _reply_name(request_id: str) -> str:
    return f"reply.{request_id}"
