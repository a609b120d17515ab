"""Who has which room when workers come and go, over the real socket and with real locks on the spool."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
import pytest_asyncio

from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.recording.front.recording import FeedRecording, RecordingFacts
from roomtape_service.spool.generation import Generation
from roomtape_service.spool.records import SpoolRecords
from tests.support.waiting import eventually

NOW = 1_700_000_000_000_000_000


class SpoolWorker:
    """A worker that only listens, with a folder of its own on the spool."""

    def __init__(self, folder: Path, index: int) -> None:
        self.told: list[protocol.Message] = []
        self.generation = Generation(folder / "spool", f"{index}")
        self._socket = folder / "node.sock"
        self._index = index
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.generation.open()
        reader, self._writer = await asyncio.open_unix_connection(self._socket)
        hello = protocol.Hello(self._index, self.generation.name, os.getpid(), str(self.generation.folder))
        self._writer.write(protocol.encode(hello))
        self._reading = asyncio.create_task(self._read(reader))

    def say(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def hang_up(self) -> None:
        assert self._writer is not None
        assert self._reading is not None
        self._writer.close()
        await self._reading

    def has_room(self) -> bool:
        return any(isinstance(each, protocol.RoomOpen) for each in self.told)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = protocol.MessageDecoder()
        try:
            while data := await reader.read(65536):
                self.told += decoder.feed(data)
        except ConnectionError:
            pass


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[WorkerPool]:
    (tmp_path / "spool").mkdir()

    async def known(recording_ids: Collection[str]) -> SpoolRecords:
        return SpoolRecords()

    pool = WorkerPool(tmp_path / "node.sock", tmp_path / "spool", lambda op: None, lambda loss: None, known)
    await pool.start()
    yield pool
    await pool.aclose()


def recorded_room(pool: WorkerPool) -> RoomFeed:
    feed = pool.feed(FeedFacts("room", protocol.RoomClock.ARRIVAL))
    feed.begin(NOW)
    facts = RecordingFacts(
        recording_id="r1",
        task_id="t1",
        kind=protocol.RecordingKind.MIXED,
        containers=(protocol.Container.WAV,),
        segment_ns=7200 * 10**9,
        segment_bytes=1 << 31,
        bitrate=64000,
        mute_ends_segment=False,
        break_wait_ns=30 * 10**9,
        from_ns=NOW,
    )
    feed.start_recording(FeedRecording(facts))
    pool.register(feed, "r1")
    return feed


@pytest.mark.parametrize(
    "said",
    [b"", b"\x00\x00", b"\x00\x00\x01\x00C{", b"\x00\x00\x00\x03C{]", protocol.encode(protocol.Bye())],
)
async def test_a_connection_that_breaks_before_it_says_hello_is_closed(
    pool: WorkerPool, tmp_path: Path, said: bytes
) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    reader, writer = await asyncio.open_unix_connection(tmp_path / "node.sock")
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert pool.worker_count == 0
    await pool.aclose()
    assert failures == []


async def test_a_room_goes_to_nobody_before_its_spool_was_looked_at(pool: WorkerPool, tmp_path: Path) -> None:
    lost, other = SpoolWorker(tmp_path, 0), SpoolWorker(tmp_path, 1)
    await lost.connect()
    await eventually(lambda: pool.worker_count == 1, "the first is there")
    feed = recorded_room(pool)
    await eventually(lost.has_room, "the first has the room")
    await lost.hang_up()
    await eventually(lambda: pool.worker_count == 0, "the first is lost")
    await other.connect()
    await eventually(lambda: pool.worker_count == 1, "another one is there")
    pool.register(feed, "r1")
    assert feed.worker is None
    lost.generation.close()
    await eventually(other.has_room, "the other has the room")
    await other.hang_up()
    other.generation.close()


@pytest.mark.parametrize("nonsense", [b"\x00\x00\x00\x02X?", b"\x00\x00\x00\x03C{]"])
async def test_a_worker_that_talks_nonsense_loses_its_rooms(
    pool: WorkerPool, tmp_path: Path, nonsense: bytes
) -> None:
    first, second = SpoolWorker(tmp_path, 0), SpoolWorker(tmp_path, 1)
    await first.connect()
    await eventually(lambda: pool.worker_count == 1, "the first is there")
    recorded_room(pool)
    await eventually(first.has_room, "the first has the room")
    await second.connect()
    await eventually(lambda: pool.worker_count == 2, "both are there")
    first.say(nonsense)
    first.generation.close()
    await eventually(second.has_room, "the second has the room")
    await first.hang_up()
    await second.hang_up()
    second.generation.close()


async def test_a_full_spool_pauses_all_rooms_and_then_they_go_on(pool: WorkerPool, tmp_path: Path) -> None:
    worker = SpoolWorker(tmp_path, 0)
    await worker.connect()
    await eventually(lambda: pool.worker_count == 1, "the worker is there")
    feed = recorded_room(pool)
    await eventually(worker.has_room, "it has the room")
    pool.pause()
    stop = protocol.RecordingStop("r1", protocol.BEFORE_ALL_NS, protocol.SpoolTrouble.FULL)
    await eventually(lambda: stop in worker.told, "its recording ends")
    worker.say(protocol.encode(protocol.RecordingStopped("r1")))
    await eventually(lambda: not feed.recordings["r1"].is_running, "it has ended")
    worker.told.clear()
    # Nothing wakes it up: not another recording, not what is retried.
    pool.register(feed, "r1")
    pool._resume(feed)
    assert worker.told == []
    pool.go_on()
    pool.go_on()
    await eventually(worker.has_room, "it has the room again")
    [opened] = [each for each in worker.told if isinstance(each, protocol.RoomOpen)]
    assert opened.gap_reason is protocol.GapReason.SPOOL_FULL
    assert feed.recordings["r1"].is_running
    await worker.hang_up()
    worker.generation.close()


async def test_nobody_waits_for_a_worker_of_a_pool_that_is_shut_down(pool: WorkerPool) -> None:
    waiting = asyncio.create_task(pool.wait_for_worker(60))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await pool.shutdown(1)
        assert not await waiting
        assert not await pool.wait_for_worker(60)
