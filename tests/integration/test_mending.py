"""Files that were damaged after they were complete: what is whole of them is kept, the rest is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from roomtape.v1 import event_pb2, segment_pb2
from roomtape_service.database import Database
from roomtape_service.database.gaps import gaps_of_task
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.segments import SegmentRow, segments_of_recording
from roomtape_service.ids import CountedIds
from roomtape_service.recording.protocol import Container, FrameStatistics, RecordingKind, Resume
from roomtape_service.recording.segment import SegmentWriter
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.journal import JournalHeader, MediaFile
from roomtape_service.spool.recovery import recover
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.segments import SegmentFacts
from tests.integration.test_facts import RECORDING, TASK, Disk
from tests.support.audio import noise
from tests.support.databases import APP, add_tasks
from tests.support.recorder import EPOCH_NS, SECOND
from tests.support.spooled import events_of_type

FRAME = 960
FRAMES = 100


class Complete:
    """A segment in WAV and MP3 that is complete, on the spool and in the database."""

    def __init__(self, root: Path, database: Database) -> None:
        self.spool = root / "spool"
        self.folder = self.spool / "1"
        self.wav = self.folder / f"{RECORDING}-000000.wav"
        self.database = database
        self.facts = Facts(database, SegmentFacts(Disk(), CountedIds()), lambda: None, self.spool)

    async def rows(self) -> dict[str, SegmentRow]:
        """By the ends of the files' names."""
        rows = await self.database.read(lambda connection: segments_of_recording(connection, RECORDING))
        return {row.object_key.rpartition(".")[2]: row for row in rows}

    def write(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / LOCK_NAME).touch()
        header = JournalHeader(
            recording_id=RECORDING,
            task_id=TASK,
            kind=RecordingKind.SINGLE,
            segment=0,
            epoch_ns=EPOCH_NS,
            start=0,
            sample_rate=48_000,
            channels=1,
            bitrate=64_000,
            files=(
                MediaFile(Container.WAV, self.wav.name),
                MediaFile(Container.MP3, self.wav.with_suffix(".mp3").name),
            ),
        )
        writer = SegmentWriter(self.folder, header, waits_for_disk=False)
        signal = noise(FRAMES * 0.02)
        for index in range(FRAMES):
            writer.add_frame(signal[index * FRAME : (index + 1) * FRAME].tobytes(), FRAME, None, FRAME)
            if index % 10 == 9 and (ready := writer.ready() // FRAME):
                writer.checkpoint(ready * FRAME, {"s/mic": Resume(ready, 0)}, FrameStatistics(ready))
        writer.end()
        resume = {"s/mic": Resume(FRAMES, 0)}
        writer.checkpoint(FRAMES * FRAME, resume, FrameStatistics(FRAMES), is_last=True)
        writer.release(interrupted=False).journal.close()


@pytest_asyncio.fixture
async def complete(tmp_path: Path, database: Database) -> AsyncIterator[Complete]:
    await add_tasks(database, [TASK])
    recording = RecordingRow(RECORDING, TASK, APP, segment_pb2.RECORDING_KIND_SINGLE, "user", 1, None)
    await database.write(lambda unit: insert_recording(unit.connection, recording))
    segment = Complete(tmp_path, database)
    segment.write()
    await segment.facts.store_recovered(await asyncio.to_thread(recover, segment.spool))
    yield segment


async def kinds(database: Database) -> dict[str, int]:
    return {
        event_pb2.EventType.Name(each): len(await events_of_type(database, each))
        for each in (
            event_pb2.EVENT_TYPE_SEGMENT_LOST,
            event_pb2.EVENT_TYPE_WARNING,
            event_pb2.EVENT_TYPE_GAP,
            event_pb2.EVENT_TYPE_INTERRUPTED,
        )
    }


async def test_bytes_that_changed_cost_what_comes_after_them(complete: Complete) -> None:
    before = await complete.rows()
    content = bytearray(complete.wav.read_bytes())
    content[44 + 55 * 2 * FRAME] ^= 1
    complete.wav.write_bytes(bytes(content))
    assert await complete.facts.mend(before["wav"])
    after = await complete.rows()
    assert after["mp3"] == before["mp3"]
    wav = after["wav"]
    assert (wav.state, wav.interrupted) == (segment_pb2.SEGMENT_STATE_SPOOLED, True)
    # MP3 lags behind by a frame or two, and checkpoints are where both are.
    assert 40 * FRAME <= wav.sample_count <= 55 * FRAME
    assert wav.size_bytes == complete.wav.stat().st_size == 44 + 2 * wav.sample_count
    assert wav.resume == before["wav"].resume
    [gap] = await complete.database.read(lambda connection: gaps_of_task(connection, TASK))
    assert (gap.start_ns, gap.end_ns) == (wav.end_ns, EPOCH_NS + 2 * SECOND)
    assert gap.reason == event_pb2.GAP_REASON_SEGMENT_LOST
    told = {"EVENT_TYPE_SEGMENT_LOST": 0, "EVENT_TYPE_WARNING": 1, "EVENT_TYPE_GAP": 1}
    assert await kinds(complete.database) == told | {"EVENT_TYPE_INTERRUPTED": 0}
    # The next start, and one more look, find nothing new.
    assert not await complete.facts.mend(wav)
    await complete.facts.store_recovered(await asyncio.to_thread(recover, complete.spool))
    assert await complete.rows() == after
    assert await kinds(complete.database) == told | {"EVENT_TYPE_INTERRUPTED": 0}


async def test_a_file_that_is_gone_is_lost_and_the_others_are_not(complete: Complete) -> None:
    before = await complete.rows()
    complete.wav.unlink()
    assert await complete.facts.mend(before["wav"])
    after = await complete.rows()
    assert (after["wav"].state, after["wav"].spool_path) == (segment_pb2.SEGMENT_STATE_LOST, None)
    assert after["mp3"] == before["mp3"]
    [lost] = await events_of_type(complete.database, event_pb2.EVENT_TYPE_SEGMENT_LOST)
    assert lost.segment.error_code == "SpoolFileGone"
    assert lost.segment.segment.state == segment_pb2.SEGMENT_STATE_LOST
    await complete.facts.store_recovered(await asyncio.to_thread(recover, complete.spool))
    assert await complete.rows() == after
    assert (await kinds(complete.database))["EVENT_TYPE_SEGMENT_LOST"] == 1


async def test_a_complete_file_needs_no_journal(complete: Complete) -> None:
    before = await complete.rows()
    complete.wav.with_suffix(".journal").unlink()
    records = await complete.facts.known([RECORDING])
    recovery = await asyncio.to_thread(lambda: recover(complete.spool, records=records))
    await complete.facts.store_recovered(recovery)
    assert (recovery.segments, recovery.damages) == ([], [])
    assert await complete.rows() == before


async def test_a_spool_that_was_moved_is_found(complete: Complete) -> None:
    before = await complete.rows()
    moved = complete.folder.rename(complete.spool / "2")
    await complete.facts.store_recovered(await asyncio.to_thread(recover, complete.spool))
    after = await complete.rows()
    assert after["wav"].spool_path == str(moved / complete.wav.name)
    assert after["wav"].sha256 == before["wav"].sha256
