"""JoinSegments from the order to the file in the store, whatever dies on the way."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
import sqlalchemy as sa

from roomtape.v1 import event_pb2, file_pb2, media_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import UnitOfWork, applications, segments, tables
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.segments import CompletedSegment, StartedSegment
from roomtape_service.ids import RandomIds
from roomtape_service.library.joins import JOINED_NAME, Joins
from roomtape_service.recording.containers.wav import WavWriter, finish_wav
from roomtape_service.rules.naming import single_key
from tests.client.proxy import tcp_proxy
from tests.support.audio import Samples, noise
from tests.support.databases import APP, ROOM
from tests.support.fault_proxy import Answer, Fault, Rule, Upstream, fault_proxy
from tests.support.library import TASK, Library, open_library, refusal
from tests.support.rclone import RcloneServer
from tests.support.spooled import SpooledFile, events_of_type
from tests.support.stores import disk_settings, rclone_settings, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

RATE = 16_000
_PART_SAMPLES = 4_800
START_NS = 1_675_930_605 * NANOSECONDS
RECORDING = "recording"
WAV, MP3 = media_pb2.CONTAINER_WAV, media_pb2.CONTAINER_MP3
UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED


@pytest.fixture
async def library(tmp_path: Path, database_url: str, rclone: RcloneServer) -> AsyncIterator[Library]:
    async with open_library(tmp_path, database_url, authority=rclone.authority) as opened:
        yield opened


async def _record(
    library: Library,
    parts: Sequence[Samples],
    *,
    recording_id: str = RECORDING,
    holes: Sequence[int] = (),
    container: media_pb2.Container.ValueType = WAV,
    rates: Sequence[int] = (),
    first: int = 0,
) -> list[SpooledFile]:
    """A recording of WAV segments, spooled; before segment n are `holes[n]` samples of nothing."""
    folder = library.spool_dir / "worker"
    folder.mkdir(parents=True, exist_ok=True)
    files: list[SpooledFile] = []
    position = first * _PART_SAMPLES
    single = segment_pb2.RECORDING_KIND_SINGLE

    async def begin(uow: UnitOfWork) -> None:
        await insert_recording(
            uow.connection, RecordingRow(recording_id, TASK, APP, single, recording_id, START_NS, None)
        )

    if not first:
        await library.database.write(begin)
    for index, part in enumerate(parts):
        position += holes[index] if holes else 0
        rate = rates[index] if rates else RATE
        path = folder / f"{recording_id}-{container}-{first + index}.wav"
        writer = WavWriter(str(path), rate, 1)
        writer.add_pcm(part.tobytes())
        finish_wav(str(path), writer.cut(len(part)), len(part), rate, 1)
        start_ns = START_NS + position * NANOSECONDS // RATE
        position += len(part)
        end_ns = START_NS + position * NANOSECONDS // RATE

        await _spool(
            library, files, path, len(part), rate, recording_id, container, first + index, (start_ns, end_ns)
        )
    return files


async def _spool(
    library: Library,
    files: list[SpooledFile],
    path: Path,
    samples: int,
    rate: int,
    recording_id: str,
    container: media_pb2.Container.ValueType,
    number: int,
    span_ns: tuple[int, int],
) -> None:
    data = path.read_bytes()
    start_ns, end_ns = span_ns

    async def work(uow: UnitOfWork) -> None:
        record = await applications.get(uow.connection, APP)
        store, prefix = library.stores.place(record)
        started = StartedSegment(
            file_id=path.stem,
            recording_id=recording_id,
            task_id=TASK,
            app_id=APP,
            room_id=ROOM,
            kind=segment_pb2.RECORDING_KIND_SINGLE,
            user_id=recording_id,
            segment_id=number,
            container=container,
            codec=media_pb2.CODEC_PCM_S16LE,
            spool_path=str(path),
            store=store,
            object_key=single_key(prefix, APP, ROOM, recording_id, START_NS, number, container),
            start_ns=start_ns,
            sample_rate=rate,
            channels=1,
        )
        key = await segments.insert_segment(uow.connection, started)
        facts = CompletedSegment(
            start_ns=start_ns,
            end_ns=end_ns,
            duration_ns=end_ns - start_ns,
            sample_rate=rate,
            channels=1,
            sample_count=samples,
            encoder_delay=0,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            interrupted=False,
            statistics=segment_pb2.FrameStatistics(recorded=10, lost=1).SerializeToString(),
            resume="{}",
        )
        await segments.complete_segment(uow.connection, path.stem, facts)
        files.append(SpooledFile(APP, path.stem, key, path, data))

    await library.database.write(work)


async def _recorded(library: Library, count: int = 3, **how: object) -> list[SpooledFile]:
    """A recording whose segments are in the store."""
    parts = [noise(_PART_SAMPLES / RATE, RATE, seed=index + 1) for index in range(count)]
    files = await _record(library, parts, **how)  # type: ignore[arg-type]
    async with library.uploading():
        await eventually(lambda: library.spool.is_uploaded(*files), "all segments are uploaded")
    return files


async def _join(library: Library, **request: object) -> segment_pb2.Segment:
    wanted = file_pb2.JoinSegmentsRequest(app_id=APP, **{"recording_id": RECORDING} | request)  # type: ignore[arg-type]
    return (await library.stub.JoinSegments(wanted)).file


async def _refused(library: Library, **request: object) -> str:
    wanted = file_pb2.JoinSegmentsRequest(app_id=APP, **{"recording_id": RECORDING} | request)  # type: ignore[arg-type]
    return (await refusal(library.stub.JoinSegments(wanted)))[1]


async def _file(library: Library, file_id: str) -> segment_pb2.Segment:
    return (await library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP, file_id=file_id))).file


async def _is(library: Library, file_id: str, state: segment_pb2.SegmentState.ValueType) -> bool:
    return (await _file(library, file_id)).state == state


def _pcm(data: bytes) -> Samples:
    return np.frombuffer(data[44:], np.int16)


@pytest.mark.parametrize("kind", ["disk", "weed", "rclone"])
async def test_segments_become_one_file_beside_them(
    library: Library, weed: WeedServer, rclone: RcloneServer, kind: str
) -> None:
    if kind != "disk":
        await library.set_storage(weed_settings(weed) if kind == "weed" else rclone_settings(rclone))
    files = await _recorded(library, 3, holes=(0, 0, 500))
    ordered = await _join(library)
    assert (ordered.state, ordered.joined_segments) == (segment_pb2.SEGMENT_STATE_RECORDING, 3)
    assert ordered.object_key.endswith("_0-2_audio.wav")
    async with library.uploading(), library.joining():
        await eventually(lambda: _is(library, ordered.file_id, UPLOADED), "it is joined")
        await eventually(lambda: not list((library.spool_dir / JOINED_NAME).iterdir()), "the spool is clean")
    made = await _file(library, ordered.file_id)
    whole = np.concatenate(
        [_pcm(files[0].data), _pcm(files[1].data), np.zeros(500, np.int16), _pcm(files[2].data)]
    )
    application = await library.database.read(lambda rows: applications.get(rows, APP))
    store = library.stores.of_file(application, made.store)
    assert store is not None
    data = await store.read(made.object_key, 0, made.size_bytes + 1)
    np.testing.assert_array_equal(_pcm(data), whole)
    assert (made.size_bytes, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert made.sample_count == len(whole)
    assert (made.statistics.recorded, made.statistics.lost) == (30, 3)
    assert (made.start_time, made.segment_id) == ((await library.get(files[0])).start_time, 0)
    assert made.end_time == (await library.get(files[2])).end_time
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENTS_JOINED)
    assert (event.task_id, event.segment.segment) == ("", made)
    assert len(await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_UPLOADED)) == 3
    listed = await library.list()
    assert {file.file_id for file in listed} == {made.file_id, *(file.file_id for file in files)}
    if kind == "disk":
        play = file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=made.file_id)
        url = (await library.stub.CreatePlaybackUrl(play)).url
        async with aiohttp.ClientSession() as session:
            headers = {"Range": "bytes=44-1043"}
            async with session.get(url, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (206, data[44:1044])


async def test_segments_of_two_stores_become_one_file(library: Library, weed: WeedServer) -> None:
    await library.set_storage(weed_settings(weed))
    files = await _recorded(library, 2)
    beside = disk_settings(APP)
    beside.secondary.object_store.CopyFrom(weed_settings(weed).object_store)
    await library.set_storage(beside)
    files += await _recorded(library, 2, first=2)
    ordered = await _join(library)
    async with library.uploading(), library.joining():
        await eventually(lambda: _is(library, ordered.file_id, UPLOADED), "it is joined")
    made = await _file(library, ordered.file_id)
    data = library.stores.disk(APP).path(made.object_key).read_bytes()
    np.testing.assert_array_equal(_pcm(data), np.concatenate([_pcm(file.data) for file in files]))


async def test_the_same_segments_are_joined_once(library: Library) -> None:
    await _recorded(library, 4)
    first = await _join(library, request_id="once")
    assert await _join(library, request_id="once") == first
    assert await _join(library, container=WAV, last_segment_id=3) == first
    other = await _join(library, first_segment_id=1, last_segment_id=2)
    assert other.file_id != first.file_id
    async with library.uploading(), library.joining():
        await eventually(lambda: _is(library, first.file_id, UPLOADED), "it is joined")
        await eventually(lambda: _is(library, other.file_id, UPLOADED), "the other is joined")
    assert (await _join(library)).file_id == first.file_id
    delete = file_pb2.DeleteFileRequest(app_id=APP, file_id=first.file_id)
    await library.stub.DeleteFile(delete)
    again = await _join(library)
    assert again.file_id != first.file_id
    assert again.object_key != first.object_key


async def test_a_task_that_is_complete_stays_it(library: Library) -> None:
    await _recorded(library)
    await _join(library)
    assert not await library.database.read(lambda rows: segments.has_unstored_segments(rows, TASK))
    rows = await library.database.read(lambda rows: segments.segments_of_task(rows, TASK))
    assert [row.joined for row in rows] == [0, 0, 0]


async def test_what_cannot_be_joined_is_refused(library: Library) -> None:
    files = await _recorded(library)
    await _recorded(library, recording_id="hole", holes=(0, 24 * 3600 * RATE + 1, 0))
    await _recorded(library, recording_id="rates", rates=(RATE, RATE, 8000))
    await _recorded(library, recording_id="alone", count=1)
    await _record(library, [noise(0.1, RATE)], first=3)
    await _set_size(library, "hole-3-2", 2**31)
    not_joinable = "SEGMENTS_NOT_JOINABLE"
    assert await _refused(library) == not_joinable
    assert await _refused(library, last_segment_id=0) == not_joinable
    assert await _refused(library, first_segment_id=1, last_segment_id=9) == not_joinable
    assert await _refused(library, first_segment_id=2, last_segment_id=1) == not_joinable
    assert await _refused(library, recording_id="hole") == not_joinable
    assert await _refused(library, recording_id="hole", first_segment_id=1) == not_joinable
    assert await _refused(library, recording_id="rates") == not_joinable
    assert await _refused(library, recording_id="alone") == not_joinable
    assert await _refused(library, recording_id="nobody") == "RECORDING_NOT_FOUND"
    assert await _refused(library, container=MP3) == "INVALID_CONTAINER"
    assert await _refused(library, container=99) == "INVALID_CONTAINER"
    assert await _refused(library, first_segment_id=-1) == "INVALID_VALUE"
    await library.delete(files[1])
    assert await _refused(library, last_segment_id=2) == not_joinable
    foreign = file_pb2.JoinSegmentsRequest(app_id="other", recording_id=RECORDING)
    assert await refusal(library.stub.JoinSegments(foreign)) == (
        grpc.StatusCode.NOT_FOUND,
        "RECORDING_NOT_FOUND",
    )


async def test_a_segment_that_is_gone_or_damaged_ends_the_order(library: Library) -> None:
    files = await _recorded(library)
    path = library.stores.disk(APP).path(files[1].object_key)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    (gone, _) = await _recorded(library, 2, recording_id="gone")
    library.stores.disk(APP).path(gone.object_key).unlink()
    (deleted, _) = await _recorded(library, 2, recording_id="deleted")
    orders = {
        "SourceDiffers": await _join(library),
        "NoSuchKey": await _join(library, recording_id="gone"),
        "SegmentsNotJoinable": await _join(library, recording_id="deleted"),
    }
    await library.delete(deleted)
    lost = segment_pb2.SEGMENT_STATE_LOST
    async with library.joining():
        for order in orders.values():
            # Each takes a process that gives way to all others: on a busy machine it needs seconds to begin.
            await eventually(
                partial(_is, library, order.file_id, lost), "the order ended", timeout_seconds=120
            )
    events = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_LOST)
    told = {event.segment.error_code: event.segment.segment.file_id for event in events}
    assert told == {code: order.file_id for code, order in orders.items()}
    assert {event.task_id for event in events} == {""}
    assert any("its SHA-256 is not" in event.segment.message for event in events)
    assert not list((library.spool_dir / JOINED_NAME).iterdir())
    # Somebody may order it again, say when the object is back.
    again = await _join(library, recording_id="gone")
    assert again.file_id != orders["NoSuchKey"].file_id


async def test_a_segment_in_an_archive_ends_the_order(library: Library, weed: WeedServer) -> None:
    body = b"<Error><Code>InvalidObjectState</Code><Message>It is archived.</Message></Error>"
    archived = Answer(403, "Forbidden", body)
    async with fault_proxy(Upstream(int(weed.endpoint.rpartition(":")[2]))) as proxy:
        await library.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        await _recorded(library)
        ordered = await _join(library)
        proxy.rules.append(
            Rule(Fault.ANSWER, lambda request: request.method == "GET", 1_000, answer=archived)
        )
        lost = segment_pb2.SEGMENT_STATE_LOST
        async with library.joining():
            await eventually(lambda: _is(library, ordered.file_id, lost), "the order ended")
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_LOST)
    assert event.segment.error_code == "InvalidObjectState"
    assert "Segment 0" in event.segment.message
    assert "restored" in event.segment.message


async def test_a_folder_that_cannot_be_made_ends_no_orders(library: Library) -> None:
    await _recorded(library)
    folder = library.spool_dir / JOINED_NAME
    folder.write_bytes(b"no folder")
    ordered = await _join(library)
    running = asyncio.create_task(library.joins.run())
    # The first look ends before this one does.
    assert (await _file(library, ordered.file_id)).state == segment_pb2.SEGMENT_STATE_RECORDING
    folder.unlink()
    async with library.uploading():

        async def is_joined() -> bool:
            library.joins.wake()
            return await _is(library, ordered.file_id, UPLOADED)

        await eventually(is_joined, "it is joined")
    await library.joins.aclose()
    await running


async def test_a_process_that_dies_and_a_node_that_dies_begin_again(
    library: Library, weed: WeedServer
) -> None:
    async with tcp_proxy(weed.endpoint.removeprefix("http://")) as proxy:
        await library.set_storage(weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}"))
        files = await _recorded(library)
        ordered = await _join(library)
        proxy.freeze()
        folder = library.spool_dir / JOINED_NAME
        async with library.joining():
            await eventually(lambda: bool(_children()), "a process is at it")
            os.kill(_children()[0], signal.SIGKILL)
            await eventually(lambda: not _children(), "it is gone")
        # The node ended, and left what is no file of any order.
        (folder / "left.wav").write_bytes(b"left")
        await proxy.stop()
        await proxy.start()
        joins = Joins(
            library.database,
            library.stores,
            library.spool_dir,
            library.clock,
            RandomIds(),
            on_spooled=library.wake_uploads,
            has_room=lambda size_bytes: True,
        )
        running = asyncio.create_task(joins.run())
        async with library.uploading():
            await eventually(lambda: _is(library, ordered.file_id, UPLOADED), "it is joined")
            await eventually(lambda: not list(folder.iterdir()), "nothing is left")
        await joins.aclose()
        await running
    assert not _children()
    made = await _file(library, ordered.file_id)
    assert made.sample_count == sum(len(_pcm(file.data)) for file in files)


async def test_without_room_an_order_waits(library: Library) -> None:
    await _recorded(library)
    library.has_room = False
    ordered = await _join(library)
    async with library.uploading(), library.joining():
        await eventually(lambda: library.joins.statistics().waiting == 1, "it waits")
        library.has_room = True
        library.clock.advance(600)
        library.joins.wake()
        await eventually(lambda: _is(library, ordered.file_id, UPLOADED), "it is joined")


async def test_a_joined_file_can_be_given_up(library: Library, weed: WeedServer) -> None:
    await _recorded(library)
    await library.set_storage(weed_settings(weed, bucket="no-such-bucket"))
    ordered = await _join(library)
    abandon = file_pb2.AbandonFileRequest(app_id=APP, file_id=ordered.file_id)
    assert (await refusal(library.stub.AbandonFile(abandon)))[1] == "FILE_NOT_ABANDONABLE"
    async with library.joining():
        spooled = segment_pb2.SEGMENT_STATE_SPOOLED
        await eventually(lambda: _is(library, ordered.file_id, spooled), "it is made")
    given_up = (await library.stub.AbandonFile(abandon)).file
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_ABANDONED)
    assert (event.task_id, event.segment.segment) == ("", given_up)
    assert not list((library.spool_dir / JOINED_NAME).iterdir())


@pytest.mark.parametrize("damage", ["truncated", "removed"])
async def test_a_joined_file_that_the_disk_loses_may_be_ordered_again(library: Library, damage: str) -> None:
    await _recorded(library)
    ordered = await _join(library)
    async with library.joining():
        spooled = segment_pb2.SEGMENT_STATE_SPOOLED
        await eventually(lambda: _is(library, ordered.file_id, spooled), "it is made")
    row = await library.database.read(lambda rows: segments.find_segment(rows, APP, ordered.file_id))
    assert row is not None
    assert not await library.joins.mend(row)
    (path,) = (library.spool_dir / JOINED_NAME).iterdir()
    if damage == "removed":
        path.unlink()
    else:
        os.truncate(path, 100)
    assert await library.joins.mend(row)
    (event,) = await events_of_type(library.database, event_pb2.EVENT_TYPE_SEGMENT_LOST)
    assert (event.task_id, event.segment.segment.file_id) == ("", ordered.file_id)
    assert not path.exists()
    assert (await _join(library)).file_id != ordered.file_id


def _children() -> list[int]:
    """The joining processes of this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == os.getpid() and b"recording.joining" in command and stat[0] != "Z":
            found.append(int(entry.name))
    return found


async def _set_size(library: Library, file_id: str, samples: int) -> None:
    async def work(uow: UnitOfWork) -> None:
        update = sa.update(tables.segments).where(tables.segments.c.file_id == file_id)
        await uow.connection.execute(update.values(sample_count=samples))

    await library.database.write(work)
