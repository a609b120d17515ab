"""A mutating request with the reply that is kept for it."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from roomtape_service.database import requests
from roomtape_service.database.unit_of_work import UnitOfWork

__all__ = ["Order", "Reply"]

Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class Order(Generic[Reply]):
    """A request whose effect happens once, however often it is sent with the same `request_id` (AIP-155)."""

    app_id: str
    request_id: str
    method: str
    request: Message
    reply_type: type[Reply]

    async def earlier_reply(self, uow: UnitOfWork) -> Reply | None:
        """What this request was answered before; call it first in the unit. Raises Refusal REQUEST_ID_REUSED."""
        stored = await requests.replay(uow, self.app_id, self.request_id, self.method, self.request)
        return None if stored is None else self.reply_type.FromString(stored)

    async def keep(self, uow: UnitOfWork, reply: Reply) -> Reply:
        """Stores the reply in the unit that makes it true."""
        await requests.store(uow, self.app_id, self.request_id, self.method, self.request, reply)
        return reply
