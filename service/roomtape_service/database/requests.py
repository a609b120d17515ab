"""Replies that are kept, so that a request sent again gets the same answer (AIP-155)."""

import hashlib

from google.protobuf.message import Message
from sqlalchemy import delete, insert, select

from roomtape.v1 import error_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.tables import requests
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal

__all__ = ["KEPT_SECONDS", "purge", "replay", "store"]

# What the contract promises for `request_id`.
KEPT_SECONDS = 24 * 3600


async def replay(
    uow: UnitOfWork, app_id: str, request_id: str, method: str, request: Message
) -> bytes | None:
    """The serialized reply that this request got before, or None if it is new or has no `request_id`.

    Call it first in the unit: it locks the application, so that the same request can't run twice at once. Raises
    Refusal REQUEST_ID_REUSED if the id came within 24 hours with another method or payload.
    """
    await uow.lock_application(app_id)
    if not request_id:
        return None
    stored = (
        await uow.connection.execute(
            select(requests).where(requests.c.app_id == app_id, requests.c.request_id == request_id)
        )
    ).first()
    if stored is None:
        return None
    if stored.create_ns <= uow.now_ns - KEPT_SECONDS * NANOSECONDS:
        await uow.connection.execute(
            delete(requests).where(requests.c.app_id == app_id, requests.c.request_id == request_id)
        )
        return None
    if stored.method != method or stored.payload_hash != _payload_hash(request):
        raise Refusal(
            error_pb2.ERROR_REASON_REQUEST_ID_REUSED,
            f"The request id {request_id!r} was used for another request within 24 hours; choose a new one.",
            metadata={"requestId": request_id, "method": stored.method},
        )
    return bytes(stored.response)


async def store(
    uow: UnitOfWork, app_id: str, request_id: str, method: str, request: Message, response: Message
) -> None:
    """Keeps the reply in the same unit as what the request did; nothing without a `request_id`."""
    if request_id:
        await uow.connection.execute(
            insert(requests).values(
                app_id=app_id,
                request_id=request_id,
                method=method,
                payload_hash=_payload_hash(request),
                response=response.SerializeToString(),
                create_ns=uow.now_ns,
            )
        )


async def purge(uow: UnitOfWork, limit: int) -> int:
    """Deletes up to `limit` replies that are older than promised, and says how many."""
    expired = (
        select(requests.c.app_id, requests.c.request_id)
        .where(requests.c.create_ns <= uow.now_ns - KEPT_SECONDS * NANOSECONDS)
        .limit(limit)
    )
    rows = (await uow.connection.execute(expired)).all()
    for row in rows:
        await uow.connection.execute(
            delete(requests).where(requests.c.app_id == row.app_id, requests.c.request_id == row.request_id)
        )
    return len(rows)


def _payload_hash(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
