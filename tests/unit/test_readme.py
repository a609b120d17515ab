"""What the README says is what the code does."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from roomtape.v1 import application_pb2, media_pb2, storage_pb2, task_pb2
from roomtape_service.cli import (
    apps,
    events,
    files,
    publish,
    record,
    rooms,
    serve,
    storage,
    verify,
    watch,
    webhooks,
)
from roomtape_service.cli.calling import ExitCode
from roomtape_service.cli.enums import names
from roomtape_service.cli.main import main
from roomtape_service.readiness import EXIT_UNUSABLE
from roomtape_service.recording.containers.table import PAIRS, Method, Pair
from roomtape_service.recording.protocol import Container, TrackCodec
from roomtape_service.rules.profiles import PROFILES
from roomtape_service.settings import CLIENT_VARIABLES, FIELDS, load
from roomtape_service.settings_sources import EnvironmentSource, FileSource, WebIdentitySource
from roomtape_service.storage.vendors import VENDORS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CONTAINERS = (ROOT / "docs" / "containers.md").read_text("utf-8")

COMMANDS = (apps, events, files, publish, record, rooms, serve, storage, verify, watch, webhooks)


def blocks(language: str) -> list[str]:
    """The code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shown_commands() -> Iterator[str]:
    for block in blocks("sh"):
        yield from (line for line in block.splitlines() if line.startswith("roomtape "))
    yield from (inline for inline in re.findall(r"`(roomtape [^`]+)`", README) if inline.count("-"))


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMTAPE_APP", "demo")
    for module in COMMANDS:
        monkeypatch.setattr(module, "run", lambda _arguments: 0)


@pytest.mark.parametrize("line", sorted(set(shown_commands())))
@pytest.mark.usefixtures("nothing_runs")
def test_every_command_is_one(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    assert main(arguments) == 0


def test_there_are_commands_to_try() -> None:
    assert len(set(shown_commands())) >= 12


def test_exit_codes() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert {int(code) for code in table} == {*map(int, ExitCode), EXIT_UNUSABLE}


def test_settings_are_those_of_the_service(tmp_path: Path) -> None:
    shown, sources = blocks("toml")
    settings = tomllib.loads(shown)
    known = load(tomllib.loads(sources), {}).credential_sources
    assert {type(source) for source in known} == {FileSource, EnvironmentSource, WebIdentitySource}
    # The files that it names are not here.
    for name in ("tls_certificate_file", "tls_key_file"):
        (tmp_path / name).touch()
        settings[name] = str(tmp_path / name)
    assert load(settings, {}).public_url == "https://recorder.example.com:7401"
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", README):
        assert name in FIELDS or name == "request_id"
    for name in re.findall(r"`(ROOMTAPE_[A-Z_]+)`", README):
        assert name in CLIENT_VARIABLES
    for name in ("record_calls_per_second", "watch_streams_per_application", "event_retention_count"):
        value = FIELDS[name].default
        assert isinstance(value, int | float)
        assert f"{value:,.0f}" in README


def test_containers_are_those_of_the_table() -> None:
    rows = {
        row[0]: [cell != "–" for cell in row[1:]]
        for row in re.findall(
            r"^\| (Opus|PCM|AAC|G\.711|the mix)[^|]* \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$",
            README,
            re.MULTILINE,
        )
    }
    columns = (Container.MP3, Container.OGG, Container.WAV, Container.AAC)
    assert rows["Opus"] == [(TrackCodec.OPUS, each) in PAIRS for each in columns]
    assert rows["PCM"] == [(TrackCodec.PCM_S16LE, each) in PAIRS for each in columns]
    assert rows["AAC"] == [(TrackCodec.AAC, each) in PAIRS for each in columns]
    assert rows["G.711"] == [(TrackCodec.PCMU, each) in PAIRS for each in columns]
    assert rows["the mix"] == rows["PCM"]
    assert names(media_pb2.Container.DESCRIPTOR) == [each.value.lower() for each in (*columns, Container.M4A)]
    assert all(((codec, Container.AAC) in PAIRS) == ((codec, Container.M4A) in PAIRS) for codec in TrackCodec)


def test_the_table_of_containers_is_that_of_the_code() -> None:
    """What `docs/containers.md` says of each pair is what tests measure."""
    rows = re.findall(
        r"^\| (\w+) \| (\w+) \| (\w+) \| (\w+) \| ([\d,]+) ms \| ([\d,]+) \|$", CONTAINERS, re.MULTILINE
    )
    told = {
        (TrackCodec(codec), Container(container)): Pair(
            Method(method), live == "yes", int(lost.replace(",", "")), int(error.replace(",", ""))
        )
        for codec, container, method, live, lost, error in rows
    }
    assert told == PAIRS


def test_modes_profiles_and_vendors_are_named() -> None:
    for mode in task_pb2.RecordMode.DESCRIPTOR.values[1:]:
        assert f"`{mode.name.removeprefix('RECORD_MODE_')}`" in README
    for profile in application_pb2.Profile.DESCRIPTOR.values[1:]:
        assert f"`{profile.name.removeprefix('PROFILE_')}`" in README
    (storing,) = re.findall(r"^\| storage \| (.*) \|$", README, re.MULTILINE)
    for vendor in storage_pb2.StorageVendor.DESCRIPTOR.values[1:]:
        assert vendor.name.removeprefix("STORAGE_VENDOR_") in storing.upper()
    ours, gme = PROFILES[application_pb2.PROFILE_ROOMTAPE], PROFILES[application_pb2.PROFILE_GME]
    assert f"{ours.list_limit:,} (`GME`: {gme.list_limit})" in README


def test_the_table_of_vendors_is_that_of_the_code() -> None:
    rows = {
        row[0]: row[1:]
        for row in re.findall(
            r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \|$", README, re.MULTILINE
        )
    }
    assert set(rows) == {vendor.name for vendor in VENDORS.values()}
    for vendor in VENDORS.values():
        title, endpoint, bucket, classes, tags = rows[vendor.name]
        assert vendor.title in title
        assert endpoint.strip("`") == (vendor.endpoint or "the vendor's own")
        assert ("path" in bucket) is (vendor.path_style_allowed and vendor.name != "s3")
        assert set(re.findall("`(.*?)`", classes)) == vendor.storage_classes
        assert (classes == "the bucket's") == (not vendor.storage_classes)
        assert tags == ("yes" if vendor.has_tags else "no")
        assert f"`{vendor.internal_endpoint}`" in README or not vendor.internal_endpoint


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"service/[\w/]+\.opus", README):
        assert (ROOT / path).is_file(), path
