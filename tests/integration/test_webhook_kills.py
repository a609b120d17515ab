"""Webhooks of the real service, whose node is killed while it delivers."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import grpc
from grpc import aio

from roomtape.client import WebhookVerifier
from roomtape.v1 import (
    event_pb2,
    event_pb2_grpc,
    room_pb2,
    room_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
    webhook_pb2,
    webhook_pb2_grpc,
)
from tests.faults.failpoint_file import FailpointFile
from tests.support.receiver import Conduct, Receiver, receiver
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

T = TypeVar("T")

APP = "app"
TASKS = 6
MODIFICATIONS = 12
KILLS = 2
PART_BYTES = 5 << 20
SETTLE = "commit:webhooks.results.Results._store.settle"
CALL_SECONDS = 60.0
LATENCY_SECONDS = 0.01
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
# What follows the others is of the same lane; so many deliveries may wait for one commit.
MOST_AGAIN = 64


class Caller:
    """Makes events, and repeats what the killed node did not answer."""

    def __init__(self, target: str) -> None:
        self._channel = aio.insecure_channel(target)
        self._rooms = room_pb2_grpc.RoomServiceStub(self._channel)
        self._recording = task_pb2_grpc.RecordingServiceStub(self._channel)
        self.webhooks = webhook_pb2_grpc.WebhookServiceStub(self._channel)
        self.watch = event_pb2_grpc.WatchServiceStub(self._channel)

    async def create_webhook(self, url: str) -> webhook_pb2.CreateWebhookResponse:
        request = webhook_pb2.CreateWebhookRequest(webhook=webhook_pb2.Webhook(app_id=APP, url=url))
        return await self.webhooks.CreateWebhook(request, timeout=CALL_SECONDS)

    async def open_room(self, name: str) -> None:
        """One event."""
        create = room_pb2.CreateRoomRequest(app_id=APP, room_id=name, request_id=f"{name}-create")
        await _until_answered(lambda: self._rooms.CreateRoom(create, wait_for_ready=True))

    async def live(self, name: str, modifications: int) -> None:
        """A room with a task that is changed again and again, then stopped."""
        await self.open_room(name)
        start = task_pb2.StartRecordRequest(
            app_id=APP, room_id=name, mode=task_pb2.RECORD_MODE_SINGLE, request_id=f"{name}-start"
        )
        started = await _until_answered(lambda: self._recording.StartRecord(start, wait_for_ready=True))
        for number in range(modifications):
            await self._modify(started.task.task_id, number)
        stop = task_pb2.StopRecordRequest(app_id=APP, task_id=started.task.task_id, request_id=f"{name}-stop")
        await _until_answered(lambda: self._recording.StopRecord(stop, wait_for_ready=True))

    async def _modify(self, task_id: str, number: int) -> None:
        modify = task_pb2.ModifyRecordInfoRequest(
            app_id=APP,
            task_id=task_id,
            mode=task_pb2.RECORD_MODE_SINGLE if number % 2 else task_pb2.RECORD_MODE_MIXED,
            request_id=f"{task_id}-{number}",
        )
        await _until_answered(lambda: self._recording.ModifyRecordInfo(modify, wait_for_ready=True))

    async def log(self) -> Sequence[event_pb2.Event]:
        """All events."""
        found: list[event_pb2.Event] = []
        token = ""
        while True:
            request = event_pb2.ListEventsRequest(app_id=APP, page_size=1000)
            if token:
                request.resume_token = token
            page = await self.watch.ListEvents(request, timeout=CALL_SECONDS)
            if not page.events:
                return found
            found += page.events
            token = page.resume_token

    async def aclose(self) -> None:
        await self._channel.close()


async def _until_answered(call: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            try:
                return await call()
            except aio.AioRpcError as error:
                if error.code() not in AGAIN:
                    raise


def check(hook: Receiver, key: str, log: Sequence[event_pb2.Event], kills: int) -> Counter[tuple[str, int]]:
    """Every event came, each first after the one before it in its task; how often each came."""
    verifier = WebhookVerifier(key)
    came: dict[str, list[int]] = defaultdict(list)
    for receipt in hook.receipts:
        event = verifier.verify(receipt.body, receipt.headers).event
        came[event.task_id].append(event.sequence)
    for task_id, sequences in came.items():
        # What happened since the log was read may have come, too.
        told = [event.sequence for event in log if event.task_id == task_id]
        first = list(dict.fromkeys(sequences))
        assert first[: len(told)] == told
        assert first == sorted(first)
        # Back at a kill, and at none else.
        assert sum(after <= before for before, after in pairwise(sequences)) <= kills
    assert set(came) >= {event.task_id for event in log}
    return Counter((task_id, sequence) for task_id, sequences in came.items() for sequence in sequences)


def serving(folder: Path, failpoints: Path | None = None) -> AbstractAsyncContextManager[ServerProcess]:
    """A service that may call this machine."""
    allowed = {
        "webhook_http": "allow",
        "webhook_allowed_networks": "127.0.0.0/8",
        # On a busy machine nothing but a kill brings an event twice.
        "webhook_timeout_seconds": "60",
        "drain_seconds": "1",
    }
    if failpoints is None:
        return running_server(folder / "data", environment={}, **allowed)
    return running_server(folder / "data", environment={}, failpoints_file=failpoints, **allowed)


async def all_came(caller: Caller, hook: Receiver, key: str) -> Sequence[event_pb2.Event]:
    """Waits until every event of the log came; returns the log."""
    verifier = WebhookVerifier(key)
    log: Sequence[event_pb2.Event] = ()

    async def is_there() -> bool:
        nonlocal log
        with suppress(aio.AioRpcError):
            log = await caller.log()
            there = {verifier.verify(each.body, each.headers).event.sequence for each in hook.receipts}
            return {event.sequence for event in log} <= there
        return False

    await eventually(is_there, "every event came", timeout_seconds=CALL_SECONDS)
    return log


async def more(hook: Receiver, count: int) -> None:
    """Waits until so many more came."""
    wanted = len(hook.receipts) + count
    await eventually(lambda: len(hook.receipts) >= wanted, "more was delivered")


async def kill_node(server: ServerProcess) -> None:
    node = server.node()
    assert node is not None
    node.kill()
    await eventually(
        lambda: (new := server.node()) is not None and new.pid != node.pid, "a new node is there"
    )


def killed_at(failpoints: FailpointFile, place: str) -> bool:
    return place in failpoints.killed_at()


async def test_a_node_that_is_killed_while_it_delivers_loses_nothing(tmp_path: Path) -> None:
    async with receiver() as hook, serving(tmp_path) as server:
        hook.latency_seconds = LATENCY_SECONDS
        caller = Caller(server.target)
        key = (await caller.create_webhook(hook.url)).key.value
        living = asyncio.gather(*(caller.live(f"room-{number}", MODIFICATIONS) for number in range(TASKS)))
        for _ in range(KILLS):
            await more(hook, 5)
            await kill_node(server)
        await living
        log = await all_came(caller, hook, key)
        again = check(hook, key, log, KILLS)
        assert sum(count - 1 for count in again.values()) <= KILLS * MOST_AGAIN
        await caller.aclose()


async def test_what_was_taken_and_not_stored_is_sent_again_and_what_was_stored_is_not(tmp_path: Path) -> None:
    failpoints = FailpointFile(tmp_path / "failpoints", PART_BYTES)
    async with (
        receiver() as hook,
        serving(tmp_path, failpoints.path) as server,
    ):
        caller = Caller(server.target)
        key = (await caller.create_webhook(hook.url)).key.value
        for times, place in ((2, SETTLE), (1, f"{SETTLE}:after")):
            before = len(hook.receipts)
            failpoints.arm({"name": place, "action": "kill"})
            await caller.open_room(f"room-{times}")
            await eventually(partial(killed_at, failpoints, place), "the node was killed")
            failpoints.arm()
            log = await all_came(caller, hook, key)
            # Whatever is to come again has come when what happens now has come.
            await caller.open_room(f"after-{times}")
            log = await all_came(caller, hook, key)
            check(hook, key, log, 1)
            assert len(hook.receipts) - before == times + 1
        await caller.aclose()


async def test_a_server_stops_although_a_receiver_hangs_and_sends_again_what_had_no_answer(
    tmp_path: Path,
) -> None:
    async with receiver() as hook, serving(tmp_path) as server:
        caller = Caller(server.target)
        key = (await caller.create_webhook(hook.url)).key.value
        await caller.open_room("taken")
        await more(hook, 1)
        hook.conduct = lambda request, body: Conduct.HANG
        await caller.open_room("hangs")
        await caller.open_room("waits")
        await eventually(lambda: hook.under_way == 1, "one is under way")
        assert await server.stop() == 0
        assert b"webhook_results_lost" not in server.log_path.read_bytes()
        hook.conduct = lambda request, body: Conduct.TAKE
        await server.start()
        log = await all_came(caller, hook, key)
        came = check(hook, key, log, 1)
        assert sorted(came.values()) == [1, 1, 2]
        await caller.aclose()
