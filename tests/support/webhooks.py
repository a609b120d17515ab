"""Webhooks in a database, events for them, and the component that sends."""

import asyncio
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from grpc import aio
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import webhook_pb2, webhook_pb2_grpc
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.tables import webhook_deliveries
from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.ids import RandomIds
from roomtape_service.rpc.webhook_messages import UrlPolicy
from roomtape_service.rpc.webhooks import WebhookServicer
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.webhooks.deliveries import Deliveries
from roomtape_service.webhooks.guard import AddressGuard
from roomtape_service.webhooks.keys import key_binding
from roomtape_service.webhooks.sender import Sender
from tests.support.databases import APP, warning
from tests.support.waiting import eventually

__all__ = [
    "KEY",
    "LOOPBACK",
    "SECRET_BOX",
    "add_key",
    "add_webhook",
    "append",
    "delivering",
    "settled",
    "states",
    "trusting",
    "webhook_service",
]

SECRET_BOX = SecretBox(bytes(32))
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])

_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.001

TIMEOUT_SECONDS = 10.0
"""Of attempts; tests whose receivers hang take less."""


async def add_webhook(
    database: Database,
    url: str,
    *,
    webhook_id: str = "hook",
    app_id: str = APP,
    concurrency: int = 8,
    format: webhook_pb2.WebhookFormat.ValueType = webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE,
    retry: webhook_pb2.WebhookRetry.ValueType = webhook_pb2.WEBHOOK_RETRY_ROOMTAPE,
    vendor_app_id: str = "",
    key: str = KEY,
    is_enabled: bool = True,
) -> WebhookRow:
    """Makes a webhook with one key."""
    row = WebhookRow(webhook_id, app_id, "", url, format, vendor_app_id, b"", retry, concurrency, is_enabled)

    async def work(uow: UnitOfWork) -> WebhookRow:
        stored = await webhook_rows.add(uow, row)
        await webhook_rows.add_first_key(uow, _key(uow, stored, key, 1))
        return stored

    return await database.write(work)


async def add_key(database: Database, row: WebhookRow, key: str, number: int, overlap_ns: int) -> WebhookRow:
    """Rotates its key."""

    async def work(uow: UnitOfWork) -> WebhookRow:
        return await webhook_rows.add_key(
            uow, row, _key(uow, row, key, number), others_end_ns=uow.now_ns + overlap_ns
        )

    return await database.write(work)


def _key(uow: UnitOfWork, row: WebhookRow, value: str, number: int) -> KeyRow:
    key_id = f"key-{number}"
    sealed = SECRET_BOX.seal_text(row.app_id, key_binding(row.webhook_id, key_id), value)
    return KeyRow(row.webhook_id, number, key_id, sealed, uow.now_ns)


async def append(database: Database, *events: tuple[str, str], app_id: str = APP) -> None:
    """Appends events (task id or nothing, text) in one unit of work."""

    async def work(uow: UnitOfWork) -> None:
        for task_id, text in events:
            await uow.append(warning(text, app_id=app_id, task_id=task_id))

    await database.write(work)


@asynccontextmanager
async def delivering(
    database: Database,
    clock: ManualClock,
    *,
    parallel: int = 64,
    seed: int = 1,
    guard: AddressGuard = LOOPBACK,
    tls: ssl.SSLContext | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    end_seconds: float = 5.0,
) -> AsyncIterator[Deliveries]:
    """The component, running. What its task raises comes out here."""
    deliveries = Deliveries(
        database,
        Sender(guard, clock, tls=tls),
        SECRET_BOX,
        clock,
        parallel=parallel,
        timeout_seconds=timeout_seconds,
        randomness=random.Random(seed),
        end_seconds=end_seconds,
    )
    task = asyncio.create_task(deliveries.run())
    try:
        yield deliveries
    finally:
        await deliveries.aclose()
        await task


async def settled(deliveries: Deliveries) -> None:
    """Waits until all that is due now was tried, and what came of it is stored."""
    await eventually(
        lambda: deliveries.statistics().is_settled,
        "all that is due was tried",
        timeout_seconds=_SETTLE_SECONDS,
        # Thousands of these make a day.
        poll_seconds=_POLL_SECONDS,
    )


@asynccontextmanager
async def webhook_service(
    database: Database, clock: ManualClock
) -> AsyncIterator["webhook_pb2_grpc.WebhookServiceAsyncStub"]:
    """WebhookService alone, over the network."""
    servicer = WebhookServicer(
        database,
        SECRET_BOX,
        clock,
        RandomIds(),
        UrlPolicy(True, LOOPBACK.allows),
        webhooks_per_application=32,
    )
    server = aio.server()
    webhook_pb2_grpc.add_WebhookServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield webhook_pb2_grpc.WebhookServiceStub(channel)
    await server.stop(None)


async def states(database: Database, webhook_id: str = "hook") -> Sequence[tuple[int, int, int]]:
    """Of each delivery of a webhook its sequence, state and attempts."""

    async def read(connection: AsyncConnection) -> Sequence[tuple[int, int, int]]:
        table = webhook_deliveries.c
        query = sa.select(table.sequence, table.state, table.attempts).where(table.webhook_id == webhook_id)
        return [
            (row.sequence, row.state, row.attempts)
            for row in await connection.execute(query.order_by(table.sequence))
        ]

    return await database.read(read)


def trusting(authority: Path) -> ssl.SSLContext:
    """Trusts what this authority signed, and nobody else."""
    return ssl.create_default_context(cafile=str(authority))
