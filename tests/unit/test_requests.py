"""Requests that come again, on both backends."""

import asyncio

import pytest

from roomtape.v1 import application_pb2, error_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, requests
from roomtape_service.errors import Refusal
from tests.support.databases import APP, stored_texts, warning


async def test_a_request_gets_the_same_answer_for_a_day(database: Database, clock: ManualClock) -> None:
    request = application_pb2.GetApplicationRequest(app_id=APP)
    reply = application_pb2.Application(app_id=APP, display_name="first")

    async def replay(
        method: str = "Get", sent: application_pb2.GetApplicationRequest = request
    ) -> bytes | None:
        return await database.write(lambda uow: requests.replay(uow, APP, "id", method, sent))

    async def store(uow: UnitOfWork) -> None:
        assert await requests.replay(uow, APP, "id", "Get", request) is None
        await requests.store(uow, APP, "id", "Get", request, reply)

    await database.write(store)
    assert await replay() == reply.SerializeToString()
    for method, sent in (("Other", request), ("Get", application_pb2.GetApplicationRequest(app_id="other"))):
        with pytest.raises(Refusal) as refused:
            await replay(method, sent)
        assert refused.value.reason == error_pb2.ERROR_REASON_REQUEST_ID_REUSED
        assert refused.value.metadata == {"requestId": "id", "method": "Get"}
    clock.advance(requests.KEPT_SECONDS - 1)
    assert await replay() == reply.SerializeToString()
    assert await database.write(lambda uow: requests.purge(uow, 10)) == 0
    clock.advance(1)
    # The id is free again, also before anybody cleans up.
    await database.write(store)
    clock.advance(requests.KEPT_SECONDS)
    assert await database.write(lambda uow: requests.purge(uow, 10)) == 1
    assert await replay() is None


async def test_requests_without_id_are_not_kept(database: Database) -> None:
    request = application_pb2.GetApplicationRequest(app_id=APP)

    async def work(uow: UnitOfWork) -> None:
        await requests.store(uow, APP, "", "Get", request, request)
        assert await requests.replay(uow, APP, "", "Get", request) is None

    await database.write(work)


async def test_the_same_request_twice_at_once_runs_once(database: Database) -> None:
    request = application_pb2.GetApplicationRequest(app_id=APP)

    async def work(uow: UnitOfWork) -> bytes:
        replayed = await requests.replay(uow, APP, "id", "Get", request)
        if replayed is not None:
            return replayed
        event = await uow.append(warning("once"))
        await requests.store(uow, APP, "id", "Get", request, event)
        return event.SerializeToString()

    replies = await asyncio.gather(*(database.write(work) for _ in range(8)))
    assert len(set(replies)) == 1
    assert await stored_texts(database) == ["once"]
