"""Snapshots come whole and lists go on, whatever happens to the calls behind them; asyncio and threads alike."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from roomtape.client import (
    Client,
    EventList,
    HistoryCompacted,
    Snapshot,
    SyncClient,
    Unavailable,
)
from roomtape.v1 import error_pb2, event_pb2, room_pb2
from roomtape_service.errors import Refusal
from tests.client.conftest import QUICK
from tests.client.scripted import Play, Scripted, abort, events

SNAPSHOT = event_pb2.WATCH_ORIGIN_SNAPSHOT
UNAVAILABLE = abort(grpc.StatusCode.UNAVAILABLE)
COMPACTED = Refusal(
    error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED, "gone", metadata={"oldestResumeToken": "2"}
)


@pytest.fixture(params=["asyncio", "threads"])
async def either(
    request: pytest.FixtureRequest, server: Scripted, client: Client
) -> AsyncIterator[Client | SyncClient]:
    if request.param == "asyncio":
        yield client
        return
    with SyncClient(server.target, retry=QUICK) as sync_client:
        yield sync_client


async def begun(client: Client | SyncClient, after: str | None = None) -> tuple[Snapshot | None, list[int]]:
    """The snapshot of a watch, and the sequences after it to its end."""
    if isinstance(client, Client):
        async with client.watch_events("app", origin=SNAPSHOT, after=after) as watch:
            return await watch.snapshot(), [event.sequence async for event in watch]

    def run() -> tuple[Snapshot | None, list[int]]:
        with client.watch_events("app", origin=SNAPSHOT, after=after) as sync_watch:
            return sync_watch.snapshot(), [event.sequence for event in sync_watch]

    return await asyncio.to_thread(run)


async def listed(
    client: Client | SyncClient, after: str | None = None, *, follow: bool = False
) -> tuple[list[int], str | None]:
    """The sequences of a list to its end, and its token then."""
    if isinstance(client, Client):
        found = client.list_events("app", after=after, follow=follow)
        return [event.sequence async for event in found], found.resume_token

    def run() -> tuple[list[int], str | None]:
        sync_found = client.list_events("app", after=after, follow=follow)
        return [event.sequence for event in sync_found], sync_found.resume_token

    return await asyncio.to_thread(run)


async def test_half_a_snapshot_is_forgotten(server: Scripted, either: Client | SyncClient) -> None:
    watching = server.watching
    watching.snapshot = [
        event_pb2.SnapshotItem(room=room_pb2.Room(room_id=str(number))) for number in range(5)
    ]
    watching.events = events(3)
    watching.plays.extend(
        [
            Play(items=2, end=UNAVAILABLE),
            Play(items=4, end=UNAVAILABLE),
            Play(count=2, end=UNAVAILABLE),
            Play(),
        ]
    )
    snapshot, sequences = await begun(either)
    assert snapshot is not None
    assert [room.room_id for room in snapshot.rooms] == list("01234")
    others = (snapshot.participants, snapshot.tasks, snapshot.recordings, snapshot.segments)
    assert not any(others)
    assert (snapshot.sequence, snapshot.resume_token) == (0, "0")
    assert sequences == [1, 2, 3]
    assert [request.resume_token for request in watching.requests] == ["", "snapshot", "snapshot", "2"]
    # A token that was kept in the middle leads to it, too; one of the log does not.
    again, sequences = await begun(either, "snapshot")
    assert again == snapshot
    assert await begun(either, "1") == (None, [2, 3])


async def test_a_list_is_read_to_its_end(server: Scripted, either: Client | SyncClient) -> None:
    watching = server.watching
    watching.events = events(7)
    watching.plays.extend([Play(count=3), Play(end=UNAVAILABLE), Play(count=3)])
    assert await listed(either) == (list(range(1, 8)), "7")
    # A call that finds no server is tried again, like any other.
    assert [request.resume_token for request in watching.lists] == ["", "3", "3", "6"]
    assert await listed(either, "5") == ([6, 7], "7")
    assert not any(request.HasField("wait") for request in watching.lists)
    watching.plays.extend([Play(end=UNAVAILABLE)] * QUICK.attempts)
    with pytest.raises(Unavailable):
        await listed(either, "5")


async def test_a_list_that_follows_waits_for_servers_and_events(
    server: Scripted, either: Client | SyncClient
) -> None:
    watching = server.watching
    watching.events = events(4)
    away = [Play(end=UNAVAILABLE)] * (2 * QUICK.attempts)
    internal = Play(end=abort(grpc.StatusCode.INTERNAL))
    watching.plays.extend([Play(count=2), *away, internal, Play(count=0), Play(is_over=True)])
    assert await listed(either, follow=True) == ([1, 2, 3, 4], "4")
    assert all(request.wait.seconds > 0 for request in watching.lists)
    watching.plays.extend([Play(count=1), Play(refusal=COMPACTED)])
    with pytest.raises(HistoryCompacted) as gone:
        await listed(either, follow=True)
    assert gone.value.oldest_resume_token == "2"


async def test_a_token_lies_after_whole_pages(server: Scripted, client: Client) -> None:
    server.watching.events = events(4)
    server.watching.plays.append(Play(count=3))
    found = client.list_events("app", after="0")
    assert isinstance(found, EventList)
    tokens = [found.resume_token async for _ in found]
    # A program that goes on from its token gets the rest of a page again, and misses nothing.
    assert tokens == ["0", "0", "3", "4"]
