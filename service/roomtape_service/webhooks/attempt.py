"""One attempt to deliver an event: signed now, with the webhook as it is now."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.clock import Clock
from roomtape_service.database.database import Database
from roomtape_service.database.outbox import Due, Outcome
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, Need, Request, TaskFacts
from roomtape_service.webhooks.sender import Answer, Fault, Sender
from roomtape_service.webhooks.webhook import Webhook, read_facts

__all__ = ["Attempt", "Attempts"]

_DELIVERED = webhook_pb2.WEBHOOK_DELIVERY_STATE_DELIVERED
_PENDING = webhook_pb2.WEBHOOK_DELIVERY_STATE_PENDING
_DEAD = webhook_pb2.WEBHOOK_DELIVERY_STATE_DEAD

_PARALLEL_READS: Final = 2
"""Hundreds of attempts under way must not take the database's connections from callers."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What it came to: `outcome` for the database, and the receiver's last answer."""

    outcome: Outcome
    answer: Answer

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has all of it."""
        return self.outcome.state == _DELIVERED

    @property
    def is_dead(self) -> bool:
        """Whether it was given up."""
        return self.outcome.state == _DEAD


class Attempts:
    """Makes attempts. `timeout_seconds` is what ours may take; the vendors' schedules say it themselves."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        clock: Clock,
        randomness: random.Random,
        *,
        timeout_seconds: float,
    ) -> None:
        self._database = database
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._sender = sender
        self._clock = clock
        self._random = randomness
        self._timeout_seconds = timeout_seconds

    async def make(self, webhook: Webhook, due: Due) -> Attempt:
        """Sends it once. Whatever fails is in the answer, but for what the database raises."""
        attempt_ns = self._clock.now_ns()
        schedule = webhook.schedule
        timeout_seconds = self._timeout_seconds if schedule.is_ours else schedule.timeout_seconds
        taken = due.requests_taken
        answer = Answer()
        try:
            requests = await self._requests(webhook, due, attempt_ns)
        except (ValueError, LookupError) as error:
            # Nothing that is sent again and again comes of it, but the owner sees it, and may change the key.
            _log.exception("webhook_not_formed", webhook_id=due.webhook_id, delivery_id=due.delivery_id)
            requests, answer = (), Answer(fault=Fault.FORMAT, text=type(error).__name__)
        for request in requests[taken:]:
            answer = await self._sender.send(webhook.row.url, request, timeout_seconds)
            if not schedule.takes(answer.status):
                return self._failed(webhook, due, attempt_ns, answer, taken)
            taken += 1
        if answer.fault is not None:
            return self._failed(webhook, due, attempt_ns, answer, taken)
        return Attempt(
            Outcome(due, _DELIVERED, attempt_ns, status=answer.status, requests_taken=taken), answer
        )

    def _failed(self, webhook: Webhook, due: Due, attempt_ns: int, answer: Answer, taken: int) -> Attempt:
        next_ns = webhook.schedule.next_ns(
            due.attempts + 1,
            due.queue_ns,
            self._clock.now_ns(),
            self._random,
            rest_seconds=answer.rest_seconds,
        )
        outcome = Outcome(
            due,
            _DEAD if next_ns is None else _PENDING,
            attempt_ns,
            status=answer.status,
            error=answer.error,
            requests_taken=taken,
            next_ns=next_ns or 0,
        )
        return Attempt(outcome, answer)

    async def _requests(self, webhook: Webhook, due: Due, attempt_ns: int) -> Sequence[Request]:
        keys = webhook.keys_at(attempt_ns)
        if not keys:
            raise LookupError("the webhook has no key that can be read")
        event = event_pb2.Event.FromString(due.payload)
        need = webhook.format.needs(event.type)
        facts = None if need is Need.NOTHING else await self._facts(event, need)
        context = FormatContext(
            vendor_app_id=webhook.row.vendor_app_id or due.app_id,
            has_string_room_ids=webhook.row.has_string_room_ids,
            facts=facts,
        )
        return webhook.format.requests(event, context, keys, Delivery(due.delivery_id, attempt_ns))

    async def _facts(self, event: event_pb2.Event, need: Need) -> TaskFacts | None:
        async def read(connection: AsyncConnection) -> TaskFacts | None:
            return await read_facts(connection, event, need)

        async with self._reads:
            return await self._database.read(read)
