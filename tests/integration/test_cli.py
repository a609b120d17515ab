"""The commands as people and scripts use them, against the real service."""

import asyncio
import hashlib
import json
import os
import signal
import sys
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from roomtape_service.cli.calling import ExitCode
from roomtape_service.demo.audio import clip_packets, file_packets
from roomtape_service.demo.clips import CLIPS
from tests.support.audio import decode_file, find_tone, tone
from tests.support.certificates import make_certificates
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMAND_SECONDS = 40.0
API_KEY = "a key for the tests"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, object]]:
        """The lines as objects; the command ended well."""
        assert self.code == ExitCode.DONE, self.err
        return [json.loads(line) for line in self.out.splitlines()]

    def one(self) -> dict[str, object]:
        """The only line."""
        (line,) = self.json()
        return line


class Commands:
    """Runs `roomtape …` with the server and the application in the environment."""

    def __init__(self, target: str, **environment: str) -> None:
        self._environment = {**os.environ, "ROOMTAPE_SERVER": target, "ROOMTAPE_APP": "app", **environment}

    async def start(
        self, *arguments: str, terminal: int = asyncio.subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        """`terminal`: where it shows itself, as a file descriptor."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "roomtape_service.cli.main"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            env={**self._environment, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        )

    async def end(self, process: asyncio.subprocess.Process) -> Ended:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def __call__(self, *arguments: str) -> Ended:
        return await self.end(await self.start(*arguments))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def roomtape(server: ServerProcess) -> Commands:
    return Commands(server.target)


def write_tone(path: Path, hertz: float, seconds: float) -> Path:
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(44_100)
        sink.writeframes(tone(hertz, seconds, 44_100).tobytes())
    return path


def task_id(reply: dict[str, object]) -> str:
    task = reply["task"]
    assert isinstance(task, dict)
    return str(task["taskId"])


def event_type(line: dict[str, object]) -> str:
    event = line["event"]
    assert isinstance(event, dict)
    return str(event["type"])


def local(url: object) -> Path:
    return Path(str(url).removeprefix("file://"))


async def test_a_recording_from_beginning_to_end(roomtape: Commands, tmp_path: Path) -> None:
    low = write_tone(tmp_path / "low.wav", 500, 3.0)
    room = (await roomtape("rooms", "create", "end-to-end", "--clock", "media", "--json")).one()
    assert room["clock"] == "ROOM_CLOCK_MEDIA"
    start = ["record", "start", "end-to-end", "--mode", "single-and-mixed", "--single", "mp3,ogg,wav"]
    started = (await roomtape(*start, "--segment", "1h", "--label", "team=blue", "--json")).one()
    task = task_id(started)
    after = str(started["resumeToken"])
    watching = await roomtape.start("watch", "--task", task, "--after", after, "--json")

    files = [str(low), str(CLIPS[0].path)]
    lines = (await roomtape("publish", *files, "--room", "end-to-end", "--fast", "--json")).json()
    assert {line["userId"]: (line["done"], line["publishedSeconds"]) for line in lines[-2:]} == {
        "low": (True, 3.0),
        "ada": (True, 8.44),
    }
    assert all(line["safeSeconds"] == line["publishedSeconds"] for line in lines[-2:])

    everything = (await roomtape("record", "stop", task, "--wait", "--json")).one()
    stopped = everything["task"]
    assert isinstance(stopped, dict)
    assert (stopped["state"], stopped["stopReason"]) == ("TASK_STATE_COMPLETED", "STOP_REASON_API")
    assert stopped["labels"] == {"team": "blue"}
    segments = everything["segments"]
    assert isinstance(segments, list)
    found = {(each.get("userId", ""), each["container"]): each for each in segments}
    assert {(user, container.removeprefix("CONTAINER_")) for user, container in found} == {
        *(("low", "MP3"), ("low", "WAV"), ("ada", "MP3"), ("ada", "OGG"), ("ada", "WAV"), ("", "MP3")),
    }
    assert file_packets(local(found["ada", "CONTAINER_OGG"]["url"])) == clip_packets(CLIPS[0].path)
    heard, rate = decode_file(local(found["low", "CONTAINER_WAV"]["url"]))
    (span,) = find_tone(heard, 500, rate)
    assert span.start == pytest.approx(0.0, abs=0.04)
    assert span.end == pytest.approx(3.0, abs=0.04)

    # The watch began before the publishers and ends with the task, by itself.
    watched = (await roomtape.end(watching)).json()
    types = [event_type(line) for line in watched[:-1]]
    assert types[-1] == "EVENT_TYPE_TASK_FILES_COMPLETE"
    assert types.count("EVENT_TYPE_SEGMENT_UPLOADED") == 6
    # Every line has the token to go on after it; the last line is the last token.
    assert watched[-1] == {"resumeToken": watched[-2]["resumeToken"]}
    middle = len(types) // 2
    token = str(watched[middle]["resumeToken"])
    rest = (await roomtape("watch", "--task", task, "--after", token, "--json")).json()
    assert [event_type(line) for line in rest[:-1]] == types[middle + 1 :]
    types_only = ["--type", "segment-uploaded,task-files-complete"]
    shown = (await roomtape("watch", "--task", task, "--from-oldest", *types_only)).out.splitlines()
    assert [line.split()[2] for line in shown] == ["segment-uploaded"] * 6 + ["task-files-complete"]


async def test_files_are_listed_downloaded_and_played(roomtape: Commands, tmp_path: Path) -> None:
    clip = str(CLIPS[1].path)
    await roomtape("rooms", "create", "library", "--clock", "media")
    task = task_id((await roomtape("record", "start", "library", "--mode", "single", "--json")).one())
    assert (await roomtape("publish", clip, "--user", "Zoë [red]", "--room", "library", "--fast")).code == 0
    await roomtape("record", "stop", task, "--wait")

    listed = (await roomtape("files", "list", "--room", "library", "--user", "Zoë [red]", "--json")).one()
    assert (await roomtape("files", "list", "--room", "library", "--user", "zoë")).out == ""
    assert (await roomtape("files", "list", "--room", "library", "--until", "2020-01-01")).out == ""
    table = await roomtape("files", "list", "--task", task)
    assert "Zoë [red]" in table.out
    file_id = str(listed["fileId"])
    assert str(listed["url"]) in table.out

    copy = tmp_path / "copy.mp3"
    got = (await roomtape("files", "get", file_id, "--output", str(copy), "--json")).one()
    assert got == listed
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == listed["sha256"]
    assert os.listdir(tmp_path) == ["copy.mp3"]
    url = await roomtape("files", "url", file_id, "--lifetime", "2h")
    assert url.out.startswith("http://127.0.0.1:")
    assert len(url.out.splitlines()) == 1

    assert (await roomtape("files", "get", "no-such-file")).err.count("FILE_NOT_FOUND") == 1
    spoilt = local(listed["url"])
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
    refused = await roomtape("files", "get", file_id, "--output", str(copy))
    assert refused.code == ExitCode.FAILED
    assert "what was downloaded is not the recorded file" in refused.err
    assert os.listdir(tmp_path) == ["copy.mp3"]


async def test_files_are_found_by_label_joined_and_deleted(roomtape: Commands, tmp_path: Path) -> None:
    low = write_tone(tmp_path / "low.wav", 300, 2.5)
    await roomtape("rooms", "create", "joined", "--clock", "media")
    how = ["--mode", "single", "--single", "wav", "--segment", "1s", "--label", "team=a", "--retention", "3d"]
    task = task_id((await roomtape("record", "start", "joined", *how, "--json")).one())
    assert (await roomtape("publish", str(low), "--user", "ada", "--room", "joined", "--fast")).code == 0
    await roomtape("record", "stop", task, "--wait")
    files = (await roomtape("files", "list", "--label", "team=a", "--json")).json()
    assert [file["segmentId"] for file in files if "segmentId" in file] == [1, 2]
    assert (await roomtape("files", "list", "--label", "team=b")).out == ""

    made = (await roomtape("files", "join", str(files[0]["recordingId"]), "--wait", "--json")).one()
    assert (made["state"], made["joinedSegments"]) == ("SEGMENT_STATE_UPLOADED", 3)
    assert made["expireTime"] == files[-1]["expireTime"]
    whole = tmp_path / "whole.wav"
    got = await roomtape("files", "get", str(made["fileId"]), "--output", str(whole))
    assert "0-2" in got.out
    samples, rate = decode_file(whole)
    assert len(samples) == 2.5 * rate
    alone = await roomtape("files", "join", str(files[0]["recordingId"]), "--last", "0")
    assert alone.err.count("SEGMENTS_NOT_JOINABLE") == 1

    deleted = await roomtape("files", "delete", *(str(file["fileId"]) for file in files), "--json")
    assert [file["state"] for file in deleted.json()] == ["SEGMENT_STATE_DELETED"] * 3
    (left,) = (await roomtape("files", "list", "--room", "joined", "--json")).json()
    assert left["fileId"] == made["fileId"]
    assert (await roomtape("files", "abandon", str(made["fileId"]))).err.count("FILE_NOT_ABANDONABLE") == 1


async def test_ctrl_c_leaves_the_room_in_order(roomtape: Commands, tmp_path: Path) -> None:
    long = write_tone(tmp_path / "long.wav", 700, 60.0)
    publishing = await roomtape.start("publish", str(long), "--room", "stopped", "--create-room", "--json")
    assert publishing.stdout is not None
    async with asyncio.timeout(COMMAND_SECONDS):
        while not json.loads(await publishing.stdout.readline())["safeSeconds"]:
            pass
    publishing.send_signal(signal.SIGINT)
    ended = await roomtape.end(publishing)
    assert ended.code == ExitCode.INTERRUPTED
    assert ended.err == ""
    last = json.loads(ended.out.splitlines()[-1])
    assert not last["done"]
    assert 0 < last["safeSeconds"] == last["publishedSeconds"] < 60
    room = (await roomtape("rooms", "describe", "stopped", "--json")).one()
    assert "participants" not in room


async def test_what_happened_is_listed(roomtape: Commands) -> None:
    await roomtape("rooms", "create", "listed")
    start = ("record", "start", "listed", "--mode", "single", "--label", "team=red", "--json")
    task = task_id((await roomtape(*start)).one())
    following = await roomtape.start("events", "list", "--task", task, "--follow", "--json")
    snapshot = await roomtape.start("watch", "--snapshot", "--label", "team=red", "--json")
    assert (await roomtape("record", "stop", task, "--wait")).code == ExitCode.DONE
    followed = (await roomtape.end(following)).json()
    types = [event_type(line) for line in followed[:-1]]
    assert (types[0], types[-1]) == ("EVENT_TYPE_TASK_STARTED", "EVENT_TYPE_TASK_FILES_COMPLETE")
    assert list(followed[-1]) == ["resumeToken"]
    listed = (await roomtape("events", "list", "--label", "team=red", "--json")).json()
    assert [event_type(line) for line in listed[:-1]] == types
    shown = await roomtape("events", "list", "--task", task)
    assert [line.split()[2] for line in shown.out.splitlines()] == [
        each.removeprefix("EVENT_TYPE_").lower().replace("_", "-") for each in types
    ]
    after = await roomtape("events", "list", "--after", str(followed[-1]["resumeToken"]))
    assert (after.code, after.out) == (ExitCode.DONE, "")
    snapshot.send_signal(signal.SIGINT)
    begun = await roomtape.end(snapshot)
    if lines := begun.json()[:-1]:
        first = lines[0]["snapshot"]
        assert isinstance(first, dict)
        assert task_id(first) == task
    unknown = await roomtape("events", "list", "--task", "1")
    assert (unknown.code, "TASK_NOT_FOUND" in unknown.err) == (ExitCode.FAILED, True)


async def test_a_terminal_shows_a_board_and_what_happens(roomtape: Commands) -> None:
    await roomtape("rooms", "create", "before")
    screen, terminal = os.openpty()
    os.set_blocking(screen, False)
    text = ""

    async def until(*wanted: str) -> None:
        nonlocal text
        async with asyncio.timeout(COMMAND_SECONDS):
            while not all(each in text for each in wanted):
                try:
                    text += os.read(screen, 65536).decode()
                except BlockingIOError:
                    await asyncio.sleep(0.02)

    try:
        watching = await roomtape.start("watch", "--room", "live", "--room", "before", terminal=terminal)
        await until("1 room,")
        assert (await roomtape("rooms", "create", "live")).code == ExitCode.DONE
        await roomtape("record", "start", "live", "--mode", "mixed")
        await until("room-created", "task-started", "2 rooms", "waiting")
        watching.send_signal(signal.SIGINT)
        await until("go on from here with --after")
        assert await watching.wait() == ExitCode.DONE
    finally:
        os.close(screen)
        os.close(terminal)


async def test_ctrl_c_ends_a_watch_with_its_token(roomtape: Commands) -> None:
    watching = await roomtape.start("watch", "--room", "watched", "--json")
    assert watching.stdout is not None
    # Whether it is registered is seen by what it shows.
    created = False
    async with asyncio.timeout(COMMAND_SECONDS):
        line = asyncio.create_task(watching.stdout.readline())
        while not line.done():
            action = "close" if created else "create"
            assert (await roomtape("rooms", action, "watched")).code == ExitCode.DONE
            created = not created
    first = json.loads(line.result())
    assert event_type(first).startswith("EVENT_TYPE_ROOM_")
    watching.send_signal(signal.SIGINT)
    ended = await roomtape.end(watching)
    assert ended.code == ExitCode.DONE
    assert ended.err == ""
    assert list(json.loads(ended.out.splitlines()[-1])) == ["resumeToken"]


async def test_tasks_are_changed_and_found(roomtape: Commands) -> None:
    await roomtape("rooms", "create", "tasks")
    start = ["record", "start", "tasks", "--mode", "mixed", "--allow", "u", "--allow", "v", "--json"]
    task = task_id((await roomtape(*start, "--client-task-id", "mine")).one())
    # A start with the id of a running task is that task.
    assert task_id((await roomtape(*start, "--client-task-id", "mine")).one()) == task
    modified = (await roomtape("record", "modify", task, "--mode", "single", "--block", "w", "--json")).one()
    changed = modified["task"]
    assert isinstance(changed, dict)
    assert changed["mode"] == "RECORD_MODE_SINGLE"
    assert changed["subscription"] == {"audio": {"blockUserIds": ["w"]}}
    modified = (await roomtape("record", "modify", task, "--everyone", "--json")).one()
    changed = modified["task"]
    assert isinstance(changed, dict)
    assert changed["mode"] == "RECORD_MODE_SINGLE"
    assert not changed["subscription"].get("audio")
    running = (await roomtape("record", "describe", "--room", "tasks", "--json")).one()
    assert running["taskId"] == task
    assert task in (await roomtape("record", "describe", task)).out
    assert task in (await roomtape("record", "list", "--room", "tasks", "--state", "waiting")).out
    assert task in (await roomtape("record", "stop", task)).out
    assert (await roomtape("record", "list", "--room", "tasks", "--state", "waiting")).out == ""
    assert "room-closed" not in (await roomtape("record", "list", "--room", "tasks")).out
    assert (await roomtape("rooms", "close", "tasks")).code == ExitCode.DONE


async def test_applications_and_their_stores(roomtape: Commands) -> None:
    created = (await roomtape("apps", "create", "second", "--name", "The second", "--json")).one()
    assert created["displayName"] == "The second"
    update = ["apps", "update", "second", "--recording", "disabled", "--profile", "gme", "--json"]
    updated = (await roomtape(*update, "--etag", str(created["etag"]))).one()
    assert (updated["serviceState"], updated["profile"]) == ("SERVICE_STATE_DISABLED", "PROFILE_GME")
    assert updated["displayName"] == "The second"
    stale = await roomtape(*update[:-1], "--etag", str(created["etag"]))
    assert stale.code == ExitCode.FAILED
    assert "ETAG_MISMATCH" in stale.err
    assert "second" in (await roomtape("apps", "list")).out
    assert (await roomtape("apps", "get", "second", "--json")).one() == updated

    checked = (await roomtape("storage", "check", "--json")).one()
    assert checked["ok"] is True
    bucket = ["--vendor", "s3", "--bucket", "b", "--region", "us-east-1", "--endpoint", "http://127.0.0.1:1"]
    failed = await roomtape("storage", "check", *bucket, "--path-style", "--access-key-id", "AK")
    assert failed.code == ExitCode.FAILED
    # Without its secret a bucket is refused before it is tried.
    assert "INVALID_STORAGE_SETTINGS" in failed.err


async def test_refusals_name_reason_and_field(roomtape: Commands, tmp_path: Path) -> None:
    await roomtape("rooms", "create", "refusing")
    long = await roomtape("rooms", "create", "x" * 200)
    assert (long.code, long.out, len(long.err.splitlines())) == (ExitCode.FAILED, "", 1)
    assert "(INVALID_ID, field room_id, request " in long.err
    container = await roomtape("record", "start", "refusing", "--mode", "mixed", "--mixed", "ogg", "--json")
    error = json.loads(container.err)["error"]
    assert error["reason"] == "CODEC_NOT_IN_CONTAINER"
    assert [each["field"] for each in error["fields"]] == ["output.mixed_containers"]
    clip = str(CLIPS[2].path)
    fast = await roomtape("publish", clip, "--room", "refusing", "--fast")
    assert "--fast needs a room with the media clock" in fast.err
    nowhere = await roomtape("publish", clip, "--room", "nowhere")
    assert "ROOM_NOT_FOUND" in nowhere.err
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    unread = await roomtape("publish", clip, str(text), "--room", "refusing")
    assert "text.wav can't be published: " in unread.err
    assert {each.code for each in (container, fast, nowhere, unread)} == {ExitCode.FAILED}
    # Nobody had joined when the second file turned out to be none.
    room = (await roomtape("rooms", "describe", "refusing", "--json")).one()
    assert "participants" not in room
    token = await roomtape("watch", "--after", "nonsense")
    assert "INVALID_RESUME_TOKEN" in token.err
    assert token.out == ""


async def test_a_reader_that_goes_away_is_no_error(roomtape: Commands) -> None:
    process = await roomtape.start("apps", "list")
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]
    async with asyncio.timeout(COMMAND_SECONDS):
        await process.wait()
    assert process.stderr is not None
    assert await process.stderr.read() == b""


async def test_tls_and_keys(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, ["127.0.0.1"])
    async with running_server(
        tmp_path / "data",
        tls_certificate_file=certificates.certificate,
        tls_key_file=certificates.key,
        api_keys=f"{hashlib.sha256(API_KEY.encode()).hexdigest()}=app",
    ) as server:
        authority = ["--ca", str(certificates.authority)]
        with_key = Commands(server.target, ROOMTAPE_API_KEY=API_KEY)
        create = ["rooms", "create", "private", "--clock", "media"]
        assert (await with_key(*create, *authority)).code == ExitCode.DONE
        task = task_id(
            (await with_key("record", "start", "private", "--mode", "single", *authority, "--json")).one()
        )
        clip = str(CLIPS[0].path)
        assert (
            await with_key("publish", clip, "--room", "private", "--fast", *authority)
        ).code == ExitCode.DONE
        await with_key("record", "stop", task, "--wait", *authority)
        (file,) = (await with_key("files", "list", *authority, "--json")).json()
        copy = tmp_path / "copy.mp3"
        got = await with_key("files", "get", str(file["fileId"]), "--output", str(copy), *authority)
        assert got.code == ExitCode.DONE, got.err
        assert copy.exists()

        other = await with_key("rooms", "list", *authority, "--app", "other")
        assert (other.code, "APPLICATION_FORBIDDEN" in other.err) == (ExitCode.FAILED, True)
        without_key = await Commands(server.target)("rooms", "list", *authority)
        assert (without_key.code, "API_KEY_INVALID" in without_key.err) == (ExitCode.FAILED, True)
        wrong_key = await Commands(server.target)("rooms", "list", *authority, "--api-key", "wrong")
        assert (wrong_key.code, "API_KEY_INVALID" in wrong_key.err) == (ExitCode.FAILED, True)
        assert (await with_key("rooms", "list")).code == ExitCode.UNREACHABLE
        assert (await with_key("rooms", "list", "--tls")).code == ExitCode.UNREACHABLE
