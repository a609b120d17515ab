"""What commands print, how they fail, and what they refuse before they call anybody."""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from roomtape.client import Client
from roomtape.client.errors import (
    ErrorDetails,
    FieldViolation,
    HistoryCompacted,
    InvalidArgument,
    Unavailable,
)
from roomtape.v1 import room_pb2, storage_pb2, task_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, Work, call
from roomtape_service.cli.main import COMMANDS, main
from roomtape_service.cli.output import Output, new_table
from roomtape_service.cli.storage_options import add_storage_arguments, storage
from roomtape_service.cli.tables import application_table, segment_table, store_text, task_table

NO_STORE = "a second store and --retention belong to a store; give --disk or --vendor too"
UNREACHABLE = "127.0.0.1:1"

INVALID = InvalidArgument(
    grpc.StatusCode.INVALID_ARGUMENT,
    "room_id: is required",
    ErrorDetails(
        reason_name="FIELD_REQUIRED",
        metadata={"field": "room_id"},
        field_violations=(FieldViolation("room_id", "is required"),),
        retry_after=2.0,
        request_id="r-1",
    ),
)
COMPACTED = HistoryCompacted(
    grpc.StatusCode.OUT_OF_RANGE,
    "events are gone",
    ErrorDetails(reason_name="EVENT_HISTORY_COMPACTED", metadata={"oldestResumeToken": "T0"}),
)
LOST = Unavailable(grpc.StatusCode.UNAVAILABLE, "connection refused")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOMTAPE_SERVER", "ROOMTAPE_APP", "ROOMTAPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def namespace(*, as_json: bool = False) -> argparse.Namespace:
    return argparse.Namespace(json=as_json, server=UNREACHABLE, api_key=None, tls=False, ca=None)


def failing(error: BaseException) -> Work:
    async def work(_client: Client, _output: Output) -> ExitCode:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            INVALID,
            ExitCode.FAILED,
            "room_id: is required (FIELD_REQUIRED, field room_id, try again in 2 s, request r-1)",
        ),
        (
            COMPACTED,
            ExitCode.FAILED,
            "events are gone; the oldest event that is kept comes with --after T0 (EVENT_HISTORY_COMPACTED)",
        ),
        (
            LOST,
            ExitCode.UNREACHABLE,
            "no answer from 127.0.0.1:1: connection refused (UNAVAILABLE)",
        ),
        (CommandError("two users for one file"), ExitCode.FAILED, "two users for one file"),
        (FileNotFoundError(2, "No such file", "x.wav"), ExitCode.FAILED, "x.wav: No such file"),
        (ConnectionError("it broke"), ExitCode.FAILED, "it broke"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, code: ExitCode, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(namespace(), failing(error)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"roomtape: {line}\n"


def test_an_error_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(namespace(as_json=True), failing(INVALID)) == ExitCode.FAILED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "reason": "FIELD_REQUIRED",
            "message": "room_id: is required",
            "fields": [{"field": "room_id", "description": "is required"}],
            "metadata": {"field": "room_id"},
            "requestId": "r-1",
        }
    }


def test_a_cancelled_command_was_interrupted() -> None:
    assert call(namespace(), failing(KeyboardInterrupt())) == ExitCode.INTERRUPTED
    assert call(namespace(), failing(asyncio.CancelledError())) == ExitCode.INTERRUPTED


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        call(namespace(), failing(ZeroDivisionError()))


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rooms", "list", "--app", "app", "--server", UNREACHABLE]) == ExitCode.UNREACHABLE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("roomtape: no answer from 127.0.0.1:1: ")


def test_a_watch_of_no_server_ends() -> None:
    assert main(["watch", "--app", "app", "--server", UNREACHABLE]) == ExitCode.UNREACHABLE


def actions() -> list[list[str]]:
    return [
        ["apps", "create", "a"],
        ["apps", "get", "a"],
        ["apps", "list"],
        ["apps", "update", "a", "--name", "x"],
        ["rooms", "create", "r"],
        ["rooms", "close", "r"],
        ["rooms", "describe", "r"],
        ["rooms", "list"],
        ["record", "start", "r", "--mode", "single"],
        ["record", "stop", "1"],
        ["record", "modify", "1", "--everyone"],
        ["record", "describe", "1"],
        ["record", "describe", "--room", "r"],
        ["record", "list"],
        ["files", "list"],
        ["files", "get", "f"],
        ["files", "url", "f"],
        ["files", "delete", "f", "g"],
        ["files", "abandon", "f"],
        ["files", "join", "r"],
        ["storage", "check"],
        ["verify", "1"],
        ["publish", "f.wav", "--room", "r", "--create-room"],
        ["watch"],
        ["watch", "--snapshot"],
        ["events", "list"],
        ["events", "list", "--follow"],
        ["webhooks", "create", "https://hooks.example.com"],
        ["webhooks", "get", "w"],
        ["webhooks", "list"],
        ["webhooks", "update", "w", "--url", "https://hooks.example.com"],
        ["webhooks", "delete", "w"],
        ["webhooks", "rotate-key", "w"],
        ["webhooks", "deliveries", "w"],
        ["webhooks", "resend", "w"],
    ]


@pytest.fixture(scope="module")
def empty_server() -> Iterator[str]:
    """A gRPC server without a service."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("arguments", actions(), ids=" ".join)
def test_every_action_calls_the_server(
    arguments: list[str], empty_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = [] if arguments[0] == "apps" else ["--app", "app"]
    assert main([*arguments, *app, "--server", empty_server, "--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "UNIMPLEMENTED"


def test_every_action_is_tried() -> None:
    tried = {arguments[0] for arguments in actions()}
    assert tried == set(COMMANDS) - {"serve", "demo"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rooms", "list"], "the following arguments are required: --app"),
        (["record", "start", "r", "--app", "a"], "the following arguments are required: --mode"),
        (["record", "start", "r", "--app", "a", "--mode", "both"], "'both' is none of single, mixed"),
        (
            ["record", "start", "r", "--app", "a", "--mode", "single", "--single", "mp3,flac"],
            "'flac' is none of",
        ),
        (["record", "start", "r", "--app", "a", "--mode", "mixed", "--segment", "soon"], "'soon' is no span"),
        (["record", "start", "r", "--app", "a", "--mode", "mixed", "--label", "x"], "'x' is no label"),
        (
            ["record", "start", "r", "--app", "a", "--mode", "mixed", "--allow", "u", "--block", "v"],
            "not allowed with argument",
        ),
        (["record", "describe", "--app", "a"], "one of the arguments TASK --room is required"),
        (["watch", "--app", "a", "--type", "rain"], "'rain' is none of room-created"),
        (["watch", "--app", "a", "--after", "t", "--from-oldest"], "not allowed with argument"),
        (["watch", "--app", "a", "--after", "t", "--snapshot"], "not allowed with argument"),
        (["events", "list", "--app", "a", "--label", "team"], "'team' is no label"),
        (["files", "list", "--app", "a", "--since", "noon"], "'noon' is no time"),
        (["files", "list", "--app", "a", "--label", "team"], "'team' is no label"),
        (["files", "join", "r", "--app", "a", "--container", "flac"], "flac"),
        (["files", "delete", "--app", "a"], "FILE_ID"),
        (["rooms", "create", "r", "--app", "a", "--clock", "wall"], "'wall' is none of arrival, media"),
        (["publish", "--app", "a", "--room", "r"], "the following arguments are required: FILE"),
    ],
)
def test_what_is_no_command_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["record", "modify", "1", "--app", "a"],
            "nothing to change; give --mode, --allow, --block or --everyone",
        ),
        (["apps", "update", "a"], "nothing to change; give --name, --profile, --recording or a store"),
        (["apps", "create", "a", "--bucket", "b"], "--bucket belongs to a bucket; give --vendor too"),
        (["apps", "create", "a", "--tag", "a=b"], "--tag belongs to a bucket; give --vendor too"),
        (["apps", "create", "a", "--disk", "--store", "tapes"], "give --disk or --store, not both"),
        (
            ["apps", "create", "a", "--store-option", "a=b"],
            "--store-option belongs to a kind of store; give --store too",
        ),
        (["apps", "create", "a", "--retention", "1d"], NO_STORE),
        (["apps", "create", "a", "--secondary-disk"], NO_STORE),
        (
            ["apps", "create", "a", "--disk", "--secondary-after", "5m"],
            "--secondary-after belongs to a second store; give --secondary-disk or such too",
        ),
        (
            ["apps", "create", "a", "--disk", "--secondary-bucket", "b"],
            "--secondary-bucket belongs to a bucket; give --secondary-vendor too",
        ),
        (
            ["apps", "create", "a", "--prefix", "p"],
            "--prefix belongs to a store; give --disk or --vendor too",
        ),
        (["apps", "create", "a", "--disk", "--vendor", "s3"], "give --disk or --vendor, not both"),
        (
            ["publish", "a.wav", "b.wav", "--user", "u", "--room", "r", "--app", "a"],
            "2 files and 1 users; give --user once for each file",
        ),
        (
            ["publish", "x/a.wav", "y/a.wav", "--room", "r", "--app", "a"],
            "two files have the same user; give each its --user",
        ),
        (
            ["publish", "/there/is/no.wav", "--room", "r", "--app", "a"],
            "/there/is/no.wav can't be published: No such file or directory",
        ),
        (
            ["rooms", "list", "--app", "a", "--ca", "/there/is/no.pem"],
            "/there/is/no.pem: No such file or directory",
        ),
    ],
)
def test_what_can_not_be_done(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--server", UNREACHABLE]) == ExitCode.FAILED
    assert capsys.readouterr().err == f"roomtape: {said}\n"


def test_the_environment_gives_server_and_application(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOMTAPE_SERVER", "127.0.0.1:2")
    monkeypatch.setenv("ROOMTAPE_APP", "app")
    assert main(["rooms", "list"]) == ExitCode.UNREACHABLE
    assert "no answer from 127.0.0.1:2" in capsys.readouterr().err


def test_programs_get_proto_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rooms = [room_pb2.Room(room_id="Zoë [red]", clock=room_pb2.ROOM_CLOCK_MEDIA), room_pb2.Room(room_id="b")]
    Output(as_json=True).show_all(rooms, new_table("room"), "none")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"roomId": "Zoë [red]", "clock": "ROOM_CLOCK_MEDIA"},
        {"roomId": "b"},
    ]
    Output(as_json=True).show_all([], new_table("room"), "none")
    assert capsys.readouterr() == ("", "")


def test_people_get_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    name = "[bold]x[/bold] :smile: " + "long " * 100
    output.show(room_pb2.Room(), name)
    table = new_table("room", "size", right=("size",))
    table.add_row(name, "1")
    output.show(room_pb2.Room(), table)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == name
    assert name.strip() in shown.splitlines()[2]
    output.show_all([], table, "no rooms")
    assert capsys.readouterr() == ("", "no rooms\n")


def render(table: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    Output(as_json=False).console.print(table())
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_tables_say_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    task = task_pb2.Task(
        task_id="42", room_id="r", mode=task_pb2.RECORD_MODE_MIXED, labels={"b": "2", "a": "1"}
    )
    task.subscription.audio.block_user_ids.extend(["u", "v"])
    rows = render(lambda: task_table([task]), capsys)
    assert rows[1] == ["42", "r", "mixed", "all", "but", "u,", "v", "a=1", "b=2"]
    task.subscription.audio.CopyFrom(task_pb2.UserFilter(allow_user_ids=["u"]))
    assert "only u" in " ".join(render(lambda: task_table([task]), capsys)[1])
    assert render(lambda: segment_table([]), capsys) != []
    assert render(lambda: application_table([]), capsys) != []


def settings_of(*arguments: str) -> storage_pb2.StorageSettings | None:
    parser = argparse.ArgumentParser()
    add_storage_arguments(parser)
    return storage(parser.parse_args(arguments))


def test_storage_settings_out_of_arguments(tmp_path: Path) -> None:
    assert settings_of() is None
    disk = settings_of("--disk", "folder", "--prefix", "p")
    assert disk is not None
    assert (disk.disk.folder, disk.prefix, store_text(disk)) == ("folder", "p", "disk folder/p")
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("s3cret\n")
    token.write_text("t0ken")
    bucket = settings_of(
        *("--vendor", "cos", "--bucket", "b-125", "--region", "ap-guangzhou", "--access-key-id", "AK"),
        *("--secret-access-key-file", str(secret), "--session-token-file", str(token), "--path-style"),
    )
    assert bucket is not None
    store = bucket.object_store
    assert store.vendor == storage_pb2.STORAGE_VENDOR_COS
    assert store.credentials.secret_access_key.value == "s3cret"
    assert store.credentials.session_token.value == "t0ken"
    assert store.path_style
    assert store_text(bucket) == "cos b-125 (ap-guangzhou)"
    everything = settings_of(
        *("--vendor", "kodo", "--credential-source", "pod", "--storage-class", "LINE", "--retention", "30d"),
        *("--tag", "team=a", "--tag", "cost=x=1", "--secondary-store", "tapes", "--secondary-after", "2m"),
        *("--secondary-store-option", "shelf=1", "--secondary-store-secret-file", f"code={secret}"),
        *("--secondary-prefix", "late"),
    )
    assert everything is not None
    store = everything.object_store
    assert (store.credentials.source, store.storage_class) == ("pod", "LINE")
    assert dict(store.tags) == {"team": "a", "cost": "x=1"}
    assert everything.retention.seconds == 30 * 86400
    second = everything.secondary
    assert (second.custom.kind, second.prefix, second.after.seconds) == ("tapes", "late", 120)
    assert dict(second.custom.options) == {"shelf": "1"}
    assert second.custom.secrets["code"].value == "s3cret"
    assert store_text(everything) == "kodo  (), else tapes/late"
    expiring = settings_of("--vendor", "s3", "--expires", "2030-01-31T12:00:00Z", "--secondary-disk")
    assert expiring is not None
    assert expiring.object_store.credentials.expire_time.seconds == 1896091200
    assert expiring.secondary.WhichOneof("store") == "disk"
    plain = settings_of("--vendor", "s3")
    assert plain is not None
    assert not plain.object_store.HasField("path_style")
