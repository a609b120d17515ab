"""How far large uploads are, told seldom, in order, and never of small files."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from roomtape.v1 import event_pb2, media_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, applications
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.multipart import Multiparts
from roomtape_service.storage.part import PART_BYTES, parts_of
from roomtape_service.storage.progress import LARGE_BYTES, UploadProgress
from tests.support.databases import APP, add_application, add_tasks
from tests.support.spooled import TestSpool, events_of_type
from tests.support.stores import make_stores
from tests.support.uploading import SteppedStore, Steps

TASK = "1000"


class Ticking(Steps):
    """Each part takes so long."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    async def pass_by(self, name: str) -> None:
        if name.startswith("after put_part"):
            self._clock.advance(self._seconds)


async def test_the_upload_of_a_large_file_says_now_and_then_how_far_it_is(
    clock: ManualClock, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, [TASK])
    stores = make_stores(tmp_path / "files")
    spool = TestSpool(database, stores, tmp_path / "spool" / "generation")
    wav = [media_pb2.CONTAINER_WAV]
    (file,) = await spool.add(APP, TASK, containers=wav, size_bytes=LARGE_BYTES + 1000)
    record = await database.read(lambda connection: applications.get(connection, APP))
    slow = SteppedStore(stores.destinations(record).first.store, Ticking(clock, 4.0))
    multiparts = Multiparts(database, MemoryBudget(2 * PART_BYTES))
    share = MemoryBudget(2 * PART_BYTES)
    await multiparts.put(await spool.row(file), slow, file.object_key, "audio/wav", 1, share)
    events = await events_of_type(database, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS)
    assert [each.segment.sent_bytes // PART_BYTES for each in events] == [4, 7]
    assert {each.segment.segment.size_bytes for each in events} == {LARGE_BYTES + 1000}
    assert {each.task_id for each in events} == {TASK}
    await stores.aclose()
    await database.aclose()


async def test_progress_is_told_seldom_and_never_of_small_files(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    await add_tasks(database, [TASK])
    stores = make_stores(tmp_path / "files")
    spool = TestSpool(database, stores, tmp_path / "spool" / "generation")
    (file,) = await spool.add(APP, TASK, size_bytes=100)
    told: list[int] = []
    for size_bytes, seconds, known, expected in (
        (LARGE_BYTES, 11.0, 0, [2, 3, 4, 5, 6, 7]),
        (LARGE_BYTES, 6.0, 3, [6]),
        (LARGE_BYTES, 1.0, 0, []),
        (LARGE_BYTES - 1, 100.0, 0, []),
    ):
        progress = UploadProgress(replace(await spool.row(file), size_bytes=size_bytes))
        for part in parts_of(size_bytes, PART_BYTES):
            if part.number <= known:
                progress.known(part)
                continue
            await database.write(partial(progress.sent, part=part), name="progress")
            clock.advance(seconds)
        told += expected
    events = await events_of_type(database, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS)
    assert [each.segment.sent_bytes // PART_BYTES for each in events] == told
    await stores.aclose()
