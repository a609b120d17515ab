"""Large files go on where they stopped, wherever that was, and leave nothing behind."""

from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from google.protobuf import duration_pb2
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, media_pb2, segment_pb2, task_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock, SystemClock
from roomtape_service.database import UnitOfWork, multiparts
from roomtape_service.database.tables import multiparts as multipart_rows
from roomtape_service.database.tables import segments, tasks
from roomtape_service.storage.part import SETTLED_BYTES
from roomtape_service.storage.upload import Uploads
from tests.support.databases import APP
from tests.support.fault_proxy import Answer, Fault, Request, Rule, Upstream, fault_proxy
from tests.support.rclone import RcloneServer
from tests.support.spooled import SpooledFile, events_of_type
from tests.support.stores import disk_settings, rclone_settings, weed_settings
from tests.support.uploading import TASK, Bench
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

WAV = (media_pb2.CONTAINER_WAV,)
SMALL_PART_BYTES = 256 << 10
# SeaweedFS takes no smaller ones.
LEAST_PART_BYTES = 5 << 20
DAY_SECONDS = 24 * 3600
UPLOADED = event_pb2.EVENT_TYPE_SEGMENT_UPLOADED


async def _grow(uploads: Uploads, file: SpooledFile, size_bytes: int) -> None:
    """A checkpoint holds so much of the file, whose head and tail are written again at its end."""
    head, tail = b"\xff" * 44, b"\xee" * 28
    file.path.write_bytes(head + file.data[len(head) : size_bytes - len(tail)] + tail)
    await uploads.grown(file.recording_id, 0, {file.container: size_bytes})


async def _end(bench: Bench, file: SpooledFile) -> None:
    file.path.write_bytes(file.data)
    await bench.spool.complete(file)


async def _has_sent(bench: Bench, *numbers: int) -> bool:
    return {number for number, tag in (await bench.tags()).items() if tag} == set(numbers)


async def _is_clean(bench: Bench, file: SpooledFile) -> None:
    """The file is in the store, once, and nothing is left of the way there."""
    assert await bench.stored(file) == file.data
    store = await bench.store_of(file)
    assert [stored.key for stored in await store.list(file.object_key.split("_audio")[0])] == [
        file.object_key
    ]
    await eventually(lambda: _nothing_begun(bench, file), "no multipart is left")
    told = [
        event
        for event in await events_of_type(bench.database, UPLOADED)
        if event.segment.segment.file_id == file.file_id
    ]
    assert len(told) == 1
    assert not file.path.exists()


async def _nothing_begun(bench: Bench, file: SpooledFile) -> bool:
    store = await bench.store_of(file)
    return (
        await bench.multiparts() == []
        and await store.list_parts_begun(file.object_key.split("_audio")[0]) == []
    )


async def test_a_crash_at_any_step_is_none_in_the_end(bench: Bench) -> None:
    """The process ends at each place where it waits, one after the other."""
    last, is_over = 0, False
    names: list[str] = []
    while not is_over:
        last += 1
        (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=3 * SMALL_PART_BYTES - 1)
        is_uploaded = partial(bench.spool.is_uploaded, file)
        bench.steps.begin_again(last)
        async with bench.uploads(part_bytes=SMALL_PART_BYTES):
            await eventually(partial(_is_stopped_or_over, bench, file), "it stops or is over")
            is_over = not bench.steps.is_there.is_set()
        names = list(bench.steps.names)
        bench.steps.begin_again()
        async with bench.uploads(part_bytes=SMALL_PART_BYTES):
            await eventually(is_uploaded, f"it is uploaded after {names[-1]}")
            await _is_clean(bench, file)
    for step in ("begin_parts", "put_part 1", "put_part 3", "complete_parts"):
        assert f"before {step}" in names
        assert f"after {step}" in names
    assert last > 20


@pytest.mark.parametrize("server", ["weed", "rclone"])
@pytest.mark.parametrize("step", ["after begin_parts", "after put_part 2", "after complete_parts"])
async def test_buckets_get_over_a_crash(
    bench: Bench, weed: WeedServer, rclone: RcloneServer, server: str, step: str
) -> None:
    await bench.set_storage(weed_settings(weed) if server == "weed" else rclone_settings(rclone))
    (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=2 * LEAST_PART_BYTES + 1)
    bench.steps.begin_again(step)
    async with bench.uploads(part_bytes=LEAST_PART_BYTES):
        await eventually(lambda: bench.steps.is_there.is_set(), "the step is reached")
    bench.steps.begin_again()
    async with bench.uploads(part_bytes=LEAST_PART_BYTES):
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)


async def test_a_restart_sends_no_part_again(bench: Bench, weed: WeedServer) -> None:
    sent: list[str] = []

    def count(request: Request) -> bool:
        if request.method == "PUT" and "partNumber" in request.target:
            sent.append(request.target.split("partNumber=")[1].split("&")[0])
        return False

    async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
        proxy.rules.append(Rule(Fault.RESET, count))
        await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=4 * LEAST_PART_BYTES + 1)
        bench.steps.begin_again("before put_part 5")
        async with bench.uploads(part_bytes=LEAST_PART_BYTES):
            await eventually(lambda: bench.steps.is_there.is_set(), "the last part is about to be sent")
        there = [str(number) for number, tag in (await bench.tags()).items() if tag]
        bench.steps.begin_again()
        async with bench.uploads(part_bytes=LEAST_PART_BYTES):
            await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
            await _is_clean(bench, file)
    assert there
    assert all(sent.count(number) == 1 for number in there)
    assert set(sent) == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize("server", ["disk", "weed", "rclone"])
async def test_parts_go_while_the_file_grows(
    bench: Bench, weed: WeedServer, rclone: RcloneServer, server: str
) -> None:
    settings = {"disk": disk_settings(APP), "weed": weed_settings(weed), "rclone": rclone_settings(rclone)}
    await bench.set_storage(settings[server])
    part = LEAST_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part + 2 * SETTLED_BYTES)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES - 1)
        await eventually(lambda: not uploads.statistics().running, "nothing runs")
        assert await bench.multiparts() == []
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2), "the second part is there")
        await _grow(uploads, file, 3 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2, 3), "the third part is there")
        assert (await bench.spool.row(file)).state == segment_pb2.SEGMENT_STATE_RECORDING
        bench.steps.begin_again()
        await _end(bench, file)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        parts = [name for name in bench.steps.names if name.startswith("before put_part")]
        assert sorted(parts) == ["before put_part 1", "before put_part 4"]
        await _is_clean(bench, file)


async def test_a_file_that_grew_goes_on_after_a_crash(bench: Bench) -> None:
    part = SMALL_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=4 * part)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 3 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2, 3), "two parts are there")
    await _end(bench, file)
    bench.steps.begin_again()
    async with bench.uploads(part_bytes=part):
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)
    parts = [name for name in bench.steps.names if name.startswith("before put_part")]
    assert sorted(parts) == ["before put_part 1", "before put_part 4"]


@pytest.mark.parametrize("server", ["disk", "weed", "rclone"])
@pytest.mark.parametrize("parts_left", [0.5, 1.5, 2.5])
async def test_what_a_power_cut_took_away_is_not_in_the_object(
    bench: Bench, weed: WeedServer, rclone: RcloneServer, server: str, parts_left: float
) -> None:
    """The file is shorter than what was sent of it, and ends in other bytes."""
    settings = {"disk": disk_settings(APP), "weed": weed_settings(weed), "rclone": rclone_settings(rclone)}
    await bench.set_storage(settings[server])
    part = LEAST_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=round(parts_left * part))
    async with bench.uploads(part_bytes=part) as uploads:
        longer = replace(file, data=file.data.ljust(3 * part + SETTLED_BYTES, b"\1"))
        await _grow(uploads, longer, 3 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2, 3), "two parts are there")
    await _end(bench, file)
    async with bench.uploads(part_bytes=part):
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)


async def test_an_upload_that_the_store_swept_away_is_begun_anew(bench: Bench) -> None:
    part = SMALL_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    store = await bench.store_of(file)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2), "a part is there")
        for begun in await store.list_parts_begun(file.object_key):
            await store.abort_parts(begun.key, begun.upload_id)
        await _end(bench, file)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)
    assert await bench.codes(file) == []


async def test_a_damaged_file_is_not_sent_again_and_again(bench: Bench) -> None:
    (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=3 * SMALL_PART_BYTES)
    damaged = bytearray(file.data)
    damaged[-1] ^= 1
    file.path.write_bytes(damaged)
    async with bench.uploads(part_bytes=SMALL_PART_BYTES) as uploads:
        await eventually(lambda: _was_told(bench, file, "SourceDiffers"), "watchers hear of the damage")
        bench.steps.begin_again()
        await uploads.retry_now(APP)
        await eventually(lambda: _has_tried(bench, file, 2), "it was tried again")
        assert not any("put_part" in name for name in bench.steps.names)
        await eventually(lambda: _nothing_begun(bench, file), "no multipart is left")
        file.path.write_bytes(file.data)
        await uploads.retry_now(APP)
        await eventually(lambda: bench.spool.is_uploaded(file), "the mended file is uploaded")
        await _is_clean(bench, file)


async def test_nothing_is_left_of_a_file_that_is_given_up(bench: Bench) -> None:
    part = SMALL_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2), "a part is there")
        await _set_state(bench, file, segment_pb2.SEGMENT_STATE_LOST)
        uploads.settings_changed()
        await eventually(lambda: _nothing_begun(bench, file), "the multipart is aborted")


async def test_what_a_store_keeps_is_asked_for_until_it_confirms(bench: Bench, weed: WeedServer) -> None:
    """The store is down when the file is lost, and the node is restarted before it is up again."""
    part = LEAST_PART_BYTES
    async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
        await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
        async with bench.uploads(part_bytes=part) as uploads:
            await _grow(uploads, file, 2 * part + SETTLED_BYTES)
            await eventually(lambda: _has_sent(bench, 2), "a part is there")
            refusal = Rule(Fault.ANSWER, lambda request: request.method == "DELETE", times=1_000)
            proxy.rules.append(refusal)
            await _set_state(bench, file, segment_pb2.SEGMENT_STATE_LOST)
            uploads.settings_changed()
            await eventually(lambda: proxy.applied[Fault.ANSWER] > 0, "the store is asked")
        assert await bench.multiparts() == [(file.file_id, False)]
        async with bench.uploads(part_bytes=part) as uploads:
            proxy.rules.remove(refusal)
            uploads.settings_changed()
            await eventually(lambda: _nothing_begun(bench, file), "the multipart is aborted")


async def test_nothing_is_left_in_a_store_that_is_left(bench: Bench) -> None:
    part = SMALL_PART_BYTES
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    old = await bench.store_of(file)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2), "a part is there")
        await bench.set_storage(disk_settings("elsewhere"))
        await _end(bench, file)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)
        assert (await bench.spool.row(file)).store == "disk:elsewhere"
    assert await old.list_parts_begun("") == []
    assert await old.list("") == []


@pytest.mark.parametrize("obstacle", ["settings", "key"])
async def test_what_nobody_can_abort_is_given_up_after_a_month_and_told(
    bench: Bench, weed: WeedServer, obstacle: str
) -> None:
    part, clock = LEAST_PART_BYTES, ManualClock(SystemClock().now_ns())
    await bench.set_storage(weed_settings(weed))
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    async with bench.uploads(part_bytes=part, clock=clock) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_sent(bench, 2), "a part is there")
        old = await bench.store_of(file)
        revoked = weed_settings(weed, secret_access_key="revoked")
        await bench.set_storage(disk_settings("elsewhere") if obstacle == "settings" else revoked)
        await _set_state(bench, file, segment_pb2.SEGMENT_STATE_LOST)
        clock.advance(29 * DAY_SECONDS)
        uploads.settings_changed()
        await eventually(lambda: _is_postponed(bench), "it was tried")
        assert await events_of_type(bench.database, event_pb2.EVENT_TYPE_WARNING) == []
        clock.advance(2 * DAY_SECONDS)
        uploads.settings_changed()
        await eventually(lambda: _has_multiparts(bench, 0), "it is given up")
        (event,) = await events_of_type(bench.database, event_pb2.EVENT_TYPE_WARNING)
        assert event.warning.reason == error_pb2.ERROR_REASON_STORE_UNAVAILABLE
        assert file.object_key in event.warning.message
    ((key, upload_id),) = [(each.key, each.upload_id) for each in await old.list_parts_begun(file.object_key)]
    await old.abort_parts(key, upload_id)


async def test_an_upload_whose_beginning_was_lost_is_aborted(bench: Bench) -> None:
    """The row says that one may be begun; two are."""
    (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=3 * SMALL_PART_BYTES)
    store = await bench.store_of(file)
    for _ in range(2):
        await store.begin_parts(file.object_key, "audio/wav", part_bytes=SMALL_PART_BYTES)

    async def add(unit: UnitOfWork) -> None:
        await multiparts.add(unit, APP, file.file_id, store.identity, file.object_key, SMALL_PART_BYTES)

    await bench.database.write(add)
    async with bench.uploads(part_bytes=SMALL_PART_BYTES):
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)


async def test_a_key_that_may_list_no_uploads_uploads(bench: Bench, weed: WeedServer) -> None:
    denied = Answer(403, "Forbidden", b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>")

    def lists_uploads(request: Request) -> bool:
        return request.method == "GET" and "?uploads" in request.target

    async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
        await bench.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=LEAST_PART_BYTES + 1)
        store = await bench.store_of(file)

        async def add(unit: UnitOfWork) -> None:
            await multiparts.add(unit, APP, file.file_id, store.identity, file.object_key, LEAST_PART_BYTES)

        await bench.database.write(add)
        proxy.rules.append(Rule(Fault.ANSWER, lists_uploads, times=1_000, answer=denied))
        async with bench.uploads(part_bytes=LEAST_PART_BYTES):
            await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        assert proxy.applied
        assert await bench.stored(file) == file.data


async def test_credentials_that_expire_on_the_way_cost_no_part(bench: Bench, weed: WeedServer) -> None:
    sent: list[str] = []
    expired = Answer(403, "Forbidden", b"<Error><Code>ExpiredToken</Code><Message>Expired.</Message></Error>")

    def is_part(request: Request) -> bool:
        return request.method == "PUT" and "partNumber" in request.target

    def is_late_part(request: Request) -> bool:
        return is_part(request) and len(sent) >= 2

    def note(request: Request) -> bool:
        if is_part(request):
            sent.append(request.target.split("partNumber=")[1].split("&")[0])
        return False

    async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
        refusal = Rule(Fault.ANSWER, is_late_part, times=1_000, answer=expired)
        proxy.rules += [refusal, Rule(Fault.RESET, note)]
        settings = weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}")
        await bench.set_storage(settings)
        (file,) = await bench.spool.add(APP, TASK, containers=WAV, size_bytes=4 * LEAST_PART_BYTES)
        async with bench.uploads(part_bytes=LEAST_PART_BYTES) as uploads:
            await eventually(lambda: _was_told(bench, file, "ExpiredToken"), "watchers hear of the token")
            row = await bench.spool.row(file)
            assert row.next_attempt_ns is not None
            # It takes somebody's hand.
            assert row.next_attempt_ns - SystemClock().now_ns() > 25e9
            (warning,) = await events_of_type(bench.database, event_pb2.EVENT_TYPE_WARNING)
            assert "session_token" in warning.warning.message
            proxy.rules.remove(refusal)
            there = {number for number, tag in (await bench.tags()).items() if tag}
            assert len(there) == 2
            sent.clear()
            await bench.set_storage(settings)
            uploads.settings_changed()
            await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
            await _is_clean(bench, file)
        assert sorted(map(int, sent)) == sorted({1, 2, 3, 4} - there)


async def test_files_that_grow_keep_no_complete_one_waiting(bench: Bench) -> None:
    part = SMALL_PART_BYTES
    growing = [
        file
        for _ in range(6)
        for file in await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    ]
    bench.steps.held = "before put_part"
    async with bench.uploads(part_bytes=part) as uploads:
        for file in growing:
            await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: len(bench.steps.waiting) == 3, "three of them are on their way")
        files = [file for _ in range(3) for file in await bench.spool.add(APP, TASK)]
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(*files), "complete files pass them")
        bench.steps.held = ""
        for file in growing:
            await _end(bench, file)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(*growing), "all are uploaded")
        for file in growing:
            await _is_clean(bench, file)


async def test_a_store_that_fails_while_a_file_grows_is_told_of_at_once(
    bench: Bench, weed: WeedServer
) -> None:
    """And parts go again when it is mended, while the file still grows."""
    part = LEAST_PART_BYTES
    good = weed_settings(weed)
    wrong = weed_settings(weed, secret_access_key="wrong")
    await bench.set_storage(wrong)
    (file,) = await bench.spool.begin(APP, TASK, containers=WAV, size_bytes=3 * part)
    async with bench.uploads(part_bytes=part) as uploads:
        await _grow(uploads, file, 2 * part + SETTLED_BYTES)
        await eventually(lambda: _has_warnings(bench, 1), "the application is warned")
        assert uploads.statistics().troubles == {APP: "SignatureDoesNotMatch"}
        await bench.set_storage(good)
        uploads.settings_changed()
        await eventually(lambda: _has_sent(bench, 2), "the part is there")
        await eventually(lambda: uploads.statistics().troubles == {}, "the trouble is over")
        await _end(bench, file)
        uploads.wake()
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
        await _is_clean(bench, file)
    assert await bench.codes(file) == []


@pytest.mark.parametrize(("of_task", "of_application", "days"), [(None, 3, 3), (5, 3, 5), (0, 3, None)])
async def test_files_expire_as_the_task_or_the_application_says(
    bench: Bench, of_task: int | None, of_application: int, days: int | None
) -> None:
    settings = disk_settings(APP)
    settings.retention.seconds = of_application * DAY_SECONDS
    await bench.set_storage(settings)
    if of_task is not None:
        retention = duration_pb2.Duration(seconds=of_task * DAY_SECONDS)
        await _set_output(bench, task_pb2.OutputSettings(retention=retention))
    (file,) = await bench.spool.add(APP, TASK)
    assert (await bench.spool.row(file)).expire_ns is None
    async with bench.uploads():
        await eventually(lambda: bench.spool.is_uploaded(file), "the file is uploaded")
    row = await bench.spool.row(file)
    # The file's media is older than its task.
    start_ns = await bench.database.read(
        lambda c: c.scalar(sa.select(tasks.c.start_ns).where(tasks.c.task_id == TASK))
    )
    assert start_ns is not None
    assert row.expire_ns == (days and start_ns + days * DAY_SECONDS * NANOSECONDS)
    (event,) = await events_of_type(bench.database, UPLOADED)
    assert event.segment.segment.HasField("expire_time") == (days is not None)
    assert event.segment.segment.store == "disk:app"


async def _set_output(bench: Bench, output: task_pb2.OutputSettings) -> None:
    async def work(unit: UnitOfWork) -> None:
        update = sa.update(tasks).where(tasks.c.task_id == TASK)
        await unit.connection.execute(update.values(output=output.SerializeToString()))

    await bench.database.write(work)


async def _has_warnings(bench: Bench, count: int) -> bool:
    return len(await events_of_type(bench.database, event_pb2.EVENT_TYPE_WARNING)) == count


async def _set_state(bench: Bench, file: SpooledFile, state: segment_pb2.SegmentState.ValueType) -> None:
    async def work(unit: UnitOfWork) -> None:
        update = sa.update(segments).where(segments.c.file_id == file.file_id)
        await unit.connection.execute(update.values(state=state))

    await bench.database.write(work)


async def _is_stopped_or_over(bench: Bench, file: SpooledFile) -> bool:
    return bench.steps.is_there.is_set() or await bench.spool.is_uploaded(file)


async def _was_told(bench: Bench, file: SpooledFile, code: str) -> bool:
    return code in await bench.codes(file)


async def _has_multiparts(bench: Bench, count: int) -> bool:
    return len(await bench.multiparts()) == count


async def _is_postponed(bench: Bench) -> bool:
    async def read(connection: AsyncConnection) -> bool:
        return await connection.scalar(sa.select(multipart_rows.c.next_attempt_ns)) is not None

    return await bench.database.read(read)


async def _has_tried(bench: Bench, file: SpooledFile, times: int) -> bool:
    return (await bench.spool.row(file)).upload_attempts >= times
