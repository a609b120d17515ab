"""The client against the real service: supervisor, node and worker as processes."""

import asyncio
import re
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import psutil
import pytest
import pytest_asyncio

import roomtape
from roomtape.client import (
    AlreadyExists,
    Client,
    HistoryLost,
    InvalidArgument,
    NotFound,
    PublisherSettings,
    RetrySettings,
    SyncClient,
    Unavailable,
)
from roomtape.v1 import error_pb2, event_pb2, file_pb2, ingest_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.client.media import packets, pitch, tone, write
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The tests wait for the server, not for the client's patience.
SOON = RetrySettings(max_seconds=0.5)

RATE_HZ = 48_000
SAMPLE_NS = 20_834
OPUS_SKIPPED_NS = 6_500_000
"""312 samples at 48 kHz: what libopus needs to settle (RFC 7845, 4.2)."""
START_NS = 1_700_000_000_000_000_000
PCM = ingest_pb2.TrackOffer(
    track_id="audio", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=RATE_HZ, channels=1
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client(server.target, retry=SOON) as client:
        yield client


async def start(
    client: Client,
    room_id: str,
    *containers: media_pb2.Container.ValueType,
    clock: room_pb2.RoomClock.ValueType = room_pb2.ROOM_CLOCK_MEDIA,
) -> task_pb2.StartRecordResponse:
    """A task that records each user of a new room."""
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=clock))
    return await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id="app",
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE,
            output=task_pb2.OutputSettings(single_containers=containers),
        )
    )


async def stop(client: Client, task_id: str) -> task_pb2.DescribeRecordInfoResponse:
    """The task when all its files are in the store."""
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
    return await client.wait_until_complete("app", task_id)


def path_of(segment: segment_pb2.Segment) -> Path:
    return Path(url2pathname(urlparse(segment.url).path))


def samples_of(segment: segment_pb2.Segment) -> bytes:
    with wave.open(str(path_of(segment))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE_HZ, 2, 1)
        samples: bytes = file.readframes(file.getnframes())
    return samples


async def test_a_file_of_opus_is_recorded_packet_by_packet(client: Client, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.ogg", "libopus", tone(440, 3))
    task = (await start(client, "opus", media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV)).task
    await client.publish_file(clip, "app", "opus", "ada", realtime=False, start_time_ns=START_NS)
    done = await stop(client, task.task_id)
    ogg, wav = done.segments
    assert packets(path_of(ogg)) == packets(clip)
    heard = np.frombuffer(samples_of(wav), np.int16)
    assert len(heard) == len(packets(clip)) * 960
    assert pitch(heard[RATE_HZ : 2 * RATE_HZ]) == pytest.approx(440, abs=2)
    for segment in (ogg, wav):
        # What is heard begins at the start; before it comes what Opus skips.
        began_ns = segment.start_time.ToNanoseconds() + OPUS_SKIPPED_NS
        assert began_ns == pytest.approx(START_NS, abs=SAMPLE_NS, rel=0)
    listed = client.list_files(file_pb2.ListFilesRequest(app_id="app", task_id=task.task_id, page_size=1))
    assert {file.file_id async for file in listed} == {ogg.file_id, wav.file_id}


async def test_decoded_files_are_recorded_sample_for_sample(client: Client, tmp_path: Path) -> None:
    samples = tone(300, 5)
    clip = write(tmp_path / "clip.wav", "pcm_s16le", samples)
    task = (await start(client, "pcm", media_pb2.CONTAINER_WAV)).task
    statistics = await client.publish_file(clip, "app", "pcm", "ada", realtime=False)
    assert statistics.published_frames == 250
    (segment,) = (await stop(client, task.task_id)).segments
    assert samples_of(segment) == samples.tobytes()


async def test_refusals_are_typed(server: ServerProcess, client: Client) -> None:
    def start_request(room_id: str) -> task_pb2.StartRecordRequest:
        return task_pb2.StartRecordRequest(app_id="app", room_id=room_id, mode=task_pb2.RECORD_MODE_SINGLE)

    with pytest.raises(NotFound) as missing:
        await client.recording.StartRecord(start_request("nobody made it"))
    assert missing.value.reason == error_pb2.ERROR_REASON_ROOM_NOT_FOUND
    assert missing.value.metadata["roomId"] == "nobody made it"
    request_id = missing.value.request_id
    await eventually(lambda: request_id in server.log_path.read_text("utf-8"), "the log has the call")
    with pytest.raises(InvalidArgument) as invalid:
        await client.recording.StartRecord(start_request(""))
    assert [violation.field for violation in invalid.value.field_violations] == ["room_id"]
    first = room_pb2.CreateRoomRequest(app_id="app", room_id="once", request_id="the-same")
    await client.rooms.CreateRoom(first)
    first.room_id = "twice"
    with pytest.raises(AlreadyExists) as reused:
        await client.rooms.CreateRoom(first)
    assert reused.value.reason == error_pb2.ERROR_REASON_REQUEST_ID_REUSED
    with pytest.raises(NotFound):
        await client.publisher("app", "nobody made it", "ada", [PCM]).open()
    watch = client.watch_events("app", after="no token")
    with pytest.raises(InvalidArgument) as unreadable:
        await anext(watch)
    assert unreadable.value.reason == error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN


async def test_both_clients_see_the_same_events(server: ServerProcess, client: Client) -> None:
    started = await start(client, "watched", media_pb2.CONTAINER_WAV)
    filter = event_pb2.EventFilter(task_ids=[started.task.task_id])

    def watched() -> list[event_pb2.Event]:
        with SyncClient(server.target) as sync_client:
            events = sync_client.watch_events("app", after=started.resume_token, filter=filter)
            return list(events)

    by_threads = asyncio.create_task(asyncio.to_thread(watched))
    async with client.publisher("app", "watched", "ada", [PCM]) as publisher:
        await publisher.publish("audio", bytes(1920))
    done = await stop(client, started.task.task_id)
    events = [event async for event in client.watch_events("app", after=started.resume_token, filter=filter)]
    assert [event.task_sequence for event in events] == list(range(1, done.task.task_sequence + 1))
    assert events[-1].type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE
    assert await by_threads == events


async def test_restarts_cost_nothing(server: ServerProcess, client: Client) -> None:
    """A publisher and two watchers go on over a node that is killed and a service that is stopped and started."""
    started = await start(client, "restarts", media_pb2.CONTAINER_WAV)
    randomness = np.random.default_rng(1)
    published = [randomness.integers(-9_000, 9_000, 960).astype("<i2").tobytes() for _ in range(300)]
    filter = event_pb2.EventFilter(task_ids=[started.task.task_id])

    async def watched() -> list[int]:
        events = client.watch_events("app", after=started.resume_token, filter=filter)
        return [event.task_sequence async for event in events]

    def watched_by_threads() -> list[int]:
        with SyncClient(server.target, retry=SOON) as sync_client:
            events = sync_client.watch_events("app", after=started.resume_token, filter=filter)
            return [event.task_sequence for event in events]

    watchers = [asyncio.create_task(watched()), asyncio.create_task(asyncio.to_thread(watched_by_threads))]
    settings = PublisherSettings(window_frames=64)
    async with client.publisher("app", "restarts", "ada", [PCM], settings=settings) as publisher:
        for number, payload in enumerate(published):
            await publisher.publish("audio", payload)
            if number == 100:
                node = server.node()
                assert isinstance(node, psutil.Process)
                node.kill()
            if number == 200:
                assert await server.stop() == 0
                await server.start()
    done = await stop(client, started.task.task_id)
    segments = sorted(done.segments, key=lambda segment: segment.segment_id)
    assert len(segments) > 1
    assert b"".join(samples_of(segment) for segment in segments) == b"".join(published)
    assert publisher.statistics().streams >= 3
    for seen in await asyncio.gather(*watchers):
        assert seen == list(range(1, done.task.task_sequence + 1))


async def test_a_log_of_another_server_is_lost(server: ServerProcess, client: Client, tmp_path: Path) -> None:
    async with client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST) as watch:
        await watch.start()
        token = watch.resume_token
    async with running_server(tmp_path / "other") as other, Client(other.target) as stranger:
        with pytest.raises(HistoryLost) as lost:
            await anext(stranger.watch_events("app", after=token))
        assert lost.value.oldest_resume_token
        watch = stranger.watch_events("app", after=lost.value.oldest_resume_token)
        await watch.start()
        await watch.aclose()
        await other.kill()
        with pytest.raises(Unavailable):
            await anext(stranger.watch_events("app", outage_seconds=0.5))


async def test_the_example_of_the_readme_runs(server: ServerProcess, tmp_path: Path) -> None:
    readme = (Path(roomtape.__file__).parents[1] / "README.md").read_text("utf-8")
    example = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    write(tmp_path / "voice.ogg", "libopus", tone(440, 0.3))
    assert example.count("127.0.0.1:7400") == 1
    (tmp_path / "example.py").write_text(example.replace("127.0.0.1:7400", server.target))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "example.py", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 0
    urls = output.decode().split()
    assert len(urls) == 2
    assert all(Path(url2pathname(urlparse(url).path)).stat().st_size for url in urls)
