"""A process that puts files into a bucket as a node does.

`python -m tests.bench.uploader FOLDER ENDPOINT BUCKET ACCESS_KEY_ID SECRET_ACCESS_KEY`. A line on stdin with
a count and a size in MiB makes it prepare so many files and say so; the same line again makes it put them, and answer
with the seconds until the last was there. With `stall` at the end of the line it tells how late its event loop was on
the way, too.
"""

import asyncio
import dataclasses
import gc
import hashlib
import json
import logging
import os
import random
import sys
import time
from pathlib import Path

import structlog
import uvloop

from roomtape.v1 import media_pb2, storage_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database, UnitOfWork, applications
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.upload import Uploads
from tests.bench.processes import MIB
from tests.support.databases import APP, add_application, add_tasks
from tests.support.spooled import SpooledFile, TestSpool
from tests.support.stores import SECRET_KEY
from tests.support.waiting import eventually

_REGION = "us-east-1"
_TASK = "1"
_CONTAINERS = (media_pb2.CONTAINER_WAV,)
# What a node has, see `roomtape_service.node`.
_GC_THRESHOLDS = (20_000, 20, 100)
_TICK_SECONDS = 0.002


@dataclasses.dataclass(frozen=True, slots=True)
class _Bucket:
    endpoint: str
    name: str
    access_key_id: str
    secret_access_key: str


def main() -> None:
    """Answers until stdin ends."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    folder, *bucket = sys.argv[1:]
    uvloop.run(_serve(Path(folder), _Bucket(*bucket)))


def _say(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


def _read() -> tuple[int, int, bool] | None:
    """How many files of how many MiB, and whether the event loop is looked at; None at the end."""
    line = sys.stdin.readline().split()
    return (int(line[0]), int(line[1]), "stall" in line) if line else None


async def _serve(folder: Path, bucket: _Bucket) -> None:
    database = Database(f"sqlite:///{folder}/bench.db", SystemClock())
    await database.open()
    await add_application(database, APP)
    await add_tasks(database, [_TASK])
    stores = Stores(folder / "files", SecretBox(SECRET_KEY))
    await _set_storage(database, bucket)
    spool = TestSpool(database, stores, folder / "spool" / "generation")
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    loop = asyncio.get_running_loop()
    _say(ready=1)
    while order := await loop.run_in_executor(None, _read):
        count, size_mib, is_timed = order
        files = [
            file
            for _ in range(count)
            for file in await spool.begin(APP, _TASK, containers=_CONTAINERS, size_bytes=1)
        ]
        await _fill(folder, spool, files, size_mib)
        _say(filled=1)
        await loop.run_in_executor(None, _read)
        _say(**await _upload(database, stores, count, is_timed=is_timed))
    await stores.aclose()
    await database.aclose()


async def _fill(folder: Path, spool: TestSpool, files: list[SpooledFile], size_mib: int) -> None:
    """All files hold the same bytes, of which there is one copy on the disk."""
    path = folder / f"{size_mib}.bin"
    if not path.exists():
        path.write_bytes(random.Random(size_mib).randbytes(size_mib * MIB))
    sizes = path.stat().st_size
    digest = await asyncio.to_thread(_sha256, path)
    for file in files:
        file.path.unlink()
        os.link(path, file.path)
    await spool.complete_as(files, sizes, digest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _upload(database: Database, stores: Stores, count: int, *, is_timed: bool) -> dict[str, float]:
    done = asyncio.Event()
    left = count

    async def uploaded(unit: UnitOfWork, app_id: str, task_id: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    uploads = Uploads(database, stores, SystemClock(), uploaded, remove_stored)
    lags: list[float] = []
    # A timer takes its share of the processor, so it runs only where its lateness is asked for.
    ticking = asyncio.create_task(_tick(lags)) if is_timed else None
    start = time.perf_counter()
    running = asyncio.create_task(uploads.run())
    await done.wait()
    seconds = time.perf_counter() - start
    if ticking is not None:
        ticking.cancel()
    await eventually(lambda: not uploads.statistics().running, "all is over")
    await uploads.aclose()
    await running
    if not lags:
        return {"seconds": seconds}
    lags.sort()
    return {"seconds": seconds, "p99_ms": lags[int(len(lags) * 0.99)] * 1000, "max_ms": lags[-1] * 1000}


async def _tick(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(_TICK_SECONDS)
        lags.append(time.perf_counter() - before - _TICK_SECONDS)


async def _set_storage(database: Database, bucket: _Bucket) -> None:
    settings = storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(
            vendor=storage_pb2.STORAGE_VENDOR_S3,
            bucket=bucket.name,
            region=_REGION,
            endpoint=bucket.endpoint,
            path_style=True,
            credentials=storage_pb2.StorageCredentials(
                access_key_id=bucket.access_key_id,
                secret_access_key=storage_pb2.Secret(value=bucket.secret_access_key),
            ),
        )
    )
    sealed = SecretBox(SECRET_KEY).seal(APP, settings).SerializeToString()

    async def work(unit: UnitOfWork) -> None:
        record = await applications.get(unit.connection, APP)
        await applications.change(unit, dataclasses.replace(record, storage=sealed))

    await database.write(work)


if __name__ == "__main__":
    main()
