"""A room is recorded; its manifest says everything of it, and whatever is done to the files afterwards is found."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
import pytest_asyncio

from roomtape.client import Client, NotFound
from roomtape.v1 import application_pb2, file_pb2, media_pb2, task_pb2
from roomtape_service.cli.main import main
from roomtape_service.manifest.encoding import digest_line
from roomtape_service.manifest.folder import FolderObjects, root_of
from roomtape_service.manifest.model import Manifest
from roomtape_service.manifest.reading import read_manifest
from roomtape_service.manifest.verification import Report, verify
from tests.support.manifests import assert_verified, manifest_path, read_stored
from tests.support.server import ServerProcess, running_server
from tests.support.stage import MS, PCM, Speaker, Stage
from tests.support.stores import make_stores, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
BOTH, SINGLE = task_pb2.RECORD_MODE_SINGLE_AND_MIXED, task_pb2.RECORD_MODE_SINGLE
ROOM = "a room/with Ünicode"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded room and where its files are."""

    task_id: str
    path: Path
    root: Path
    manifest: Manifest

    def copy(self, folder: Path) -> "Recorded":
        """The same somewhere else."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        return Recorded(self.task_id, folder / self.path.relative_to(self.root), folder, self.manifest)

    async def verify(self) -> Report:
        return await verify(self.path.read_bytes(), FolderObjects(self.root))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """The service as processes."""
    async with running_server(tmp_path_factory.mktemp("manifests") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(server.target) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded(client: Client) -> Recorded:
    """Ada talks, leaves and comes back; Ben is muted for a while; every user into three containers, and a mix."""
    stage = Stage(client, ROOM)
    ada, ben = Speaker("ada/1", 500), Speaker("ben", 900)
    await stage.record(BOTH, singles=[MP3, OGG, WAV], mixes=[MP3, WAV])
    await stage.join(ada, ben)
    await stage.talk(0.5, ada, ben)
    await stage.leave(ada)
    await stage.mute(ben, True)
    await stage.talk(0.5, ben)
    await stage.mute(ben, False)
    await stage.join(ada)
    await stage.talk(0.5, ada, ben)
    await stage.end()
    path = await manifest_path(client, "app", stage.task_id)
    manifest = read_manifest(path.read_bytes())
    root = root_of(path, manifest)
    assert root is not None
    return Recorded(stage.task_id, path, root, manifest)


async def test_the_manifest_says_everything(client: Client, recorded: Recorded) -> None:
    manifest = recorded.manifest
    assert (manifest.app_id, manifest.room_id, manifest.task_id) == ("app", ROOM, recorded.task_id)
    assert (manifest.state, manifest.complete, manifest.stop_reason) == ("COMPLETED", True, "API")
    assert manifest.complete_ns is not None
    assert manifest.stop_ns is not None
    assert manifest.start_ns < manifest.stop_ns <= manifest.complete_ns
    assert [scope.mode for scope in manifest.scopes] == ["SINGLE_AND_MIXED"]
    assert manifest.room.clock == "MEDIA"
    described = await client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=recorded.task_id)
    )
    assert described.task.complete_time.ToNanoseconds() == manifest.complete_ns
    assert [each.recording_id for each in described.recordings] == [
        each.recording_id for each in manifest.recordings
    ]
    files = {
        file.file_id: file
        for recording in manifest.recordings
        for segment in recording.segments
        for file in segment.files
    }
    assert files.keys() == {segment.file_id for segment in described.segments}
    for segment in described.segments:
        file = files[segment.file_id]
        assert file.object_key == segment.object_key
        assert file.sha256 == segment.sha256
        assert file.size_bytes == segment.size_bytes
        assert file.sample_count == segment.sample_count
        assert file.encoder_delay_samples == segment.encoder_delay_samples
        assert file.start_ns == segment.start_time.ToNanoseconds()
        assert file.end_ns == segment.end_time.ToNanoseconds()
        assert file.state == "UPLOADED"
        assert file.url.startswith("file:///")
    stays = [(who.user_id, who.leave_ns is not None) for who in manifest.participants]
    assert sorted(stays) == [("ada/1", True), ("ada/1", True), ("ben", True)]
    (mute,) = next(who for who in manifest.participants if who.user_id == "ben").tracks[0].mutes
    assert mute.end_ns is not None
    assert 500 * MS <= mute.end_ns - mute.start_ns < 1500 * MS
    assert (
        sum(len(recording.segments) for recording in manifest.recordings if recording.user_id == "ada/1") == 2
    )


def fetch(url: str) -> tuple[bytes, str]:
    with urlopen(url) as answer:
        return answer.read(), answer.headers["Content-Type"]


async def test_it_lies_in_a_folder_of_the_task(client: Client, recorded: Recorded) -> None:
    reply = await client.files.GetManifest(
        file_pb2.GetManifestRequest(app_id="app", task_id=recorded.task_id)
    )
    assert reply.manifest.object_key == f"app_a~20room~2Fwith~20~C3~9Cnicode/{recorded.task_id}/manifest.json"
    assert reply.manifest.object_key == recorded.manifest.object_key
    data = recorded.path.read_bytes()
    assert reply.manifest.size_bytes == len(data)
    assert reply.manifest.sha256 == hashlib.sha256(data).hexdigest()
    assert reply.manifest.complete
    assert reply.manifest.store == "disk:app"
    fetched, content_type = await asyncio.to_thread(fetch, reply.playback_url)
    assert fetched == data
    assert content_type == "application/json"
    lines = data.decode().splitlines(keepends=True)
    assert json.loads(data)["digest"] == hashlib.sha256("".join(lines[:-1]).encode()).hexdigest()


async def test_all_is_well(recorded: Recorded) -> None:
    report = await recorded.verify()
    assert report.ok
    assert len(report.files) == 3 * 3 + 2
    reasons = {(recording.user_id, hole.reasons) for recording, hole in report.holes}
    assert reasons == {("ada/1", ("absent",))}


def flip(recorded: Recorded, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(recorded: Recorded, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def remove(recorded: Recorded, path: Path) -> None:
    path.unlink()


def swap(recorded: Recorded, path: Path) -> None:
    other = next(recorded.root.glob(f"*_ben/*{path.suffix}"))
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def replace_by_text(recorded: Recorded, path: Path) -> None:
    path.write_bytes(b"no audio " * 1000)


def empty(recorded: Recorded, path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("container", ["mp3", "ogg", "wav"])
@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (flip, ["its SHA-256 is"]),
        (truncate, ["bytes, not", "its SHA-256 is"]),
        (remove, ["it is not there"]),
        (swap, ["its SHA-256 is"]),
        (replace_by_text, ["bytes, not", "its SHA-256 is", "it can't be decoded"]),
        (empty, ["it has 0 bytes", "its SHA-256 is", "it can't be decoded"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_file_that_is_not_the_recorded_one_is_found(
    recorded: Recorded,
    tmp_path: Path,
    container: str,
    tamper: Callable[[Recorded, Path], None],
    told: list[str],
) -> None:
    copied = recorded.copy(tmp_path)
    victim = next(tmp_path.glob(f"*_ada*/*_0_audio.{container}"))
    tamper(copied, victim)
    report = await copied.verify()
    about = {each.about for each in report.findings}
    assert str(victim.relative_to(tmp_path)) in about
    assert len(about) == (2 if tamper is swap else 1)
    problems = " ".join(each.problem for each in report.findings)
    assert all(text in problems for text in told)


@pytest.mark.parametrize(
    "name",
    ["*_audio.mp3", "foreign.txt", "{task}_{stamp}_7_audio.mp3", "{task}/other.json"],
    ids=["copy", "foreign", "mix", "beside-the-manifest"],
)
async def test_what_nobody_named_is_found(recorded: Recorded, tmp_path: Path, name: str) -> None:
    copied = recorded.copy(tmp_path)
    mix = copied.path.parent.parent
    stamp = next(mix.glob("*_0_audio.mp3")).name.split("_")[1]
    if name.startswith("*"):
        source = next(tmp_path.glob(f"*_ben/{name}"))
        extra = source.with_name(source.name.replace("_0_", "_9_"))
        shutil.copy(source, extra)
    else:
        extra = mix / name.format(task=recorded.task_id, stamp=stamp)
        extra.write_bytes(b"x")
    report = await copied.verify()
    assert [(each.about, each.problem) for each in report.findings] == [
        (str(extra.relative_to(tmp_path)), "it is there, and not in the manifest")
    ]


def other_size(content: str) -> str:
    return content.replace('"size_bytes": ', '"size_bytes": 1', 1)


def one_segment_less(content: str) -> str:
    lines = content.splitlines(keepends=True)
    of_ada = next(
        n for n, line in enumerate(lines) if '"user_id": "ada/1"' in line and "recording_id" in line
    )
    return "".join(lines[: of_ada + 2] + lines[of_ada + 3 :])


def later(content: str) -> str:
    document = json.loads(content)
    found = next(each for each in document["recordings"] if each["user_id"] == "ada/1")
    told = found["segments"][1]["start_time"]
    return content.replace(told, told.replace("T", "T", 1)[:17] + "59" + told[19:])


@pytest.mark.parametrize("is_signed", [False, True], ids=["with-the-old-digest", "with-a-new-digest"])
@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (other_size, "bytes, not"),
        (one_segment_less, "not numbered from 0"),
        (later, "s by its times and"),
    ],
)
async def test_a_changed_manifest_is_found(
    recorded: Recorded, tmp_path: Path, tamper: Callable[[str], str], told: str, is_signed: bool
) -> None:
    copied = recorded.copy(tmp_path)
    before = copied.path.read_text("utf-8")
    after = tamper(before)
    assert after != before
    if is_signed:
        body = "".join(after.splitlines(keepends=True)[:-1]).encode()
        copied.path.write_bytes(body + digest_line(body))
    else:
        copied.path.write_text(after, "utf-8")
    report = await copied.verify()
    problems = [each.problem for each in report.findings]
    assert any(told in problem for problem in problems), problems
    assert any("changed after it was written" in problem for problem in problems) is not is_signed


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"version": 2}', b'{"version": true}', b"[" * 100_000],
    ids=["empty", "object", "list", "null", "no-text", "version", "flag", "deep"],
)
async def test_what_is_no_manifest_is_said(tmp_path: Path, data: bytes) -> None:
    report = await verify(data, FolderObjects(tmp_path))
    assert not report.ok
    assert report.manifest is None


async def test_the_command_by_server_and_by_folder(
    server: ServerProcess, recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(arguments: list[str]) -> int:
        return await asyncio.to_thread(main, arguments)

    served = ["verify", "--server", server.target, "--app", "app", recorded.task_id]
    assert await run(served) == 0
    assert "all is well: 11 files" in capsys.readouterr().out
    assert await run([*served, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {
        "ok": True,
        "taskId": recorded.task_id,
        "complete": True,
        "files": 11,
        "holes": lines[-1]["holes"],
        "findings": [],
    }
    assert len(lines) == 12
    copied = recorded.copy(tmp_path / "copy")
    assert await run(["verify", str(copied.path)]) == 0
    victim = next(copied.root.glob("*_ben/*.mp3"))
    victim.unlink()
    moved = tmp_path / "elsewhere.json"
    shutil.move(copied.path, moved)
    capsys.readouterr()
    assert await run(["verify", str(moved)]) == 1
    assert "say with --folder where keys begin" in capsys.readouterr().err
    assert await run(["verify", str(moved), "--folder", str(copied.root)]) == 1
    shown = capsys.readouterr().out
    assert f"{victim.relative_to(copied.root)}: it is not there" in shown
    assert "1 thing is wrong" in shown
    assert await run(["verify", "--server", server.target, "--app", "app", "12345"]) == 1
    assert "TASK_NOT_FOUND" in capsys.readouterr().err
    assert await run(["verify", str(tmp_path / "none.json")]) == 1


async def test_a_running_task_is_verified_as_far_as_it_is(
    server: ServerProcess, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, ada = Stage(client, "running"), Speaker("ada", 500, PCM)
    await stage.record(SINGLE, singles=[WAV], segment_seconds=1.0)

    async def is_written() -> bool:
        with suppress(NotFound):
            return not (await read_stored(client, "app", stage.task_id)).complete
        return False

    await eventually(is_written, "the first manifest is written")
    await stage.join(ada)
    await stage.talk(1.5, ada)
    served = ["verify", "--server", server.target, "--app", "app", stage.task_id]
    assert await asyncio.to_thread(main, served) == 0
    assert "files are on their way" in capsys.readouterr().out
    await stage.end()
    assert (await read_stored(client, "app", stage.task_id)).complete


async def test_a_task_that_recorded_nothing_completes_and_has_a_manifest(client: Client) -> None:
    stage = Stage(client, "nobody")
    await stage.record(BOTH)
    assert await stage.end() == []
    manifest = await read_stored(client, "app", stage.task_id)
    assert manifest.complete
    assert manifest.recordings == ()
    report = await assert_verified(client, "app", stage.task_id)
    assert report.files == []


async def test_two_tasks_that_start_at_once_have_each_their_files(client: Client) -> None:
    reports = []
    for _ in range(2):
        stage, ada = Stage(client, "twins"), Speaker("ada", 500, PCM)
        await stage.record(SINGLE, singles=[WAV])
        await stage.join(ada)
        await stage.talk(0.2, ada)
        await stage.end()
        reports.append(await assert_verified(client, "app", stage.task_id))
    keys = [each.file.object_key for report in reports for each in report.files]
    assert len(set(keys)) == 2


async def test_a_bucket_is_verified_by_playback_urls(
    server: ServerProcess,
    client: Client,
    weed: WeedServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    application = application_pb2.Application(app_id="bucket", storage=weed_settings(weed))
    await client.applications.CreateApplication(
        application_pb2.CreateApplicationRequest(application=application)
    )
    stage, ada = Stage(client, "in-a-bucket", app_id="bucket"), Speaker("ada", 500)
    await stage.record(BOTH, singles=[OGG, WAV], mixes=[MP3])
    await stage.join(ada)
    await stage.talk(0.3, ada)
    await stage.end()
    served = ["verify", "--server", server.target, "--app", "bucket", stage.task_id]
    assert await asyncio.to_thread(main, served) == 0
    assert "all is well: 3 files" in capsys.readouterr().out
    stores = make_stores(tmp_path)
    store = stores.store(weed_settings(weed))
    (wav,) = [each for each in await store.list("bucket_in-a-bucket_ada/") if each.key.endswith("wav")]
    await store.put_bytes(wav.key, bytes(wav.size_bytes), "audio/wav")
    assert await asyncio.to_thread(main, served) == 1
    assert f"{wav.key}: its SHA-256 is" in capsys.readouterr().out
    await store.delete(wav.key)
    assert await asyncio.to_thread(main, served) == 1
    assert f"{wav.key}: it is not there: 404" in capsys.readouterr().out
    manifest_key = f"bucket_in-a-bucket/{stage.task_id}/manifest.json"
    size = (await store.head(manifest_key)).size_bytes
    document = await store.read(manifest_key, 0, size)
    await store.put_bytes(manifest_key, document.replace(b"ada", b"eva"), "application/json")
    assert await asyncio.to_thread(main, served) == 1
    shown = capsys.readouterr().out
    assert "the manifest: its SHA-256 is" in shown
    assert "the manifest: it was changed after it was written" in shown
    await stores.aclose()


async def test_the_library_is_in_it(client: Client) -> None:
    stage, ada = Stage(client, "library"), Speaker("ada", 500, PCM)
    await stage.record(SINGLE, singles=[WAV], segment_seconds=1.0)
    await stage.join(ada)
    await stage.talk(2.5, ada)
    segments = await stage.end()
    assert len(segments) == 3
    joined = await client.files.JoinSegments(
        file_pb2.JoinSegmentsRequest(app_id="app", recording_id=segments[0].recording_id)
    )

    async def files() -> dict[str, tuple[str, int | None]]:
        manifest = await read_stored(client, "app", stage.task_id)
        (recording,) = manifest.recordings
        found = [file for segment in recording.segments for file in segment.files]
        return {
            file.file_id: (file.state, file.joined_segments) for file in [*found, *recording.joined_files]
        }

    async def is_joined() -> bool:
        return (await files()).get(joined.file.file_id) == ("UPLOADED", 3)

    await eventually(is_joined, "the manifest names the joined file")
    report = await assert_verified(client, "app", stage.task_id)
    assert len(report.files) == 4
    await client.files.DeleteFile(file_pb2.DeleteFileRequest(app_id="app", file_id=segments[1].file_id))

    async def is_deleted() -> bool:
        return (await files())[segments[1].file_id][0] == "DELETED"

    await eventually(is_deleted, "the manifest says that the file was deleted")
    report = await assert_verified(client, "app", stage.task_id)
    assert [each.was_checked for each in report.files] == [True, False, True, True]
    assert report.manifest is not None
    assert report.manifest.complete
