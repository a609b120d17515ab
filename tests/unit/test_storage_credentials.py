"""Keys that come from elsewhere: how they are read, and when anew."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.settings_sources import CredentialSource, EnvironmentSource, FileSource
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.credential_readers import EnvironmentReader, FileReader, make_sources
from roomtape_service.storage.credentials import CredentialSources, FixedKeys, Keys, SourceKeys
from roomtape_service.storage.store import CredentialsRefused, StoreError, StoreUnavailable

HOUR_NS = 3600 * NANOSECONDS
SECRET = "s3cr3t/value"


class _Reader:
    """Gives keys that are valid for an hour, a new one at each read, or fails."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.reads = 0
        self.error: StoreError | None = None
        self.is_newer = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def is_changed(self) -> bool:
        return self.is_newer

    async def read(self) -> Keys:
        await self.gate.wait()
        self.reads += 1
        if self.error:
            raise self.error
        self.is_newer = False
        return Keys(f"AK{self.reads}", SECRET, "token", self.clock.now_ns() + HOUR_NS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reader(clock: ManualClock) -> _Reader:
    return _Reader(clock)


@pytest.fixture
def ring(reader: _Reader, clock: ManualClock) -> SourceKeys:
    return SourceKeys("vault", reader, clock)


async def _id(ring: SourceKeys) -> str:
    return (await ring.keys()).access_key_id


async def test_keys_are_read_once_and_anew_before_they_expire(
    ring: SourceKeys, reader: _Reader, clock: ManualClock
) -> None:
    assert [await _id(ring) for _ in range(3)] == ["AK1"] * 3
    clock.advance(49 * 60)
    assert await _id(ring) == "AK1"
    clock.advance(61)
    assert await _id(ring) == "AK2"
    reader.is_newer = True
    assert await _id(ring) == "AK3"
    assert reader.reads == 3


async def test_many_who_ask_at_once_cause_one_read(ring: SourceKeys, reader: _Reader) -> None:
    reader.gate.clear()
    asked = [asyncio.create_task(_id(ring)) for _ in range(20)]
    await asyncio.sleep(0)
    reader.gate.set()
    assert await asyncio.gather(*asked) == ["AK1"] * 20
    assert reader.reads == 1


async def test_valid_keys_outlive_a_source_that_fails(
    ring: SourceKeys, reader: _Reader, clock: ManualClock
) -> None:
    first = await ring.keys()
    assert ring.failing_until_ns is None
    reader.error = StoreUnavailable("CredentialSourceUnavailable", "down")
    clock.advance(55 * 60)
    assert await ring.keys() == first
    assert ring.failing_until_ns == first.expire_ns
    reads = reader.reads
    assert await ring.keys() == first
    assert reader.reads == reads, "it is not asked for each call"
    clock.advance(31)
    assert await ring.keys() == first
    assert reader.reads == reads + 1
    clock.advance(5 * 60)
    with pytest.raises(StoreUnavailable):
        await ring.keys()
    reader.error = None
    assert await _id(ring) == f"AK{reader.reads}"
    assert ring.failing_until_ns is None


async def test_keys_that_a_store_refused_are_asked_for_anew(
    ring: SourceKeys, reader: _Reader, clock: ManualClock
) -> None:
    first = await ring.keys()
    # Just read: what refuses them now refuses the next ones, too.
    assert not await ring.renewed(first)
    clock.advance(6)
    assert await ring.renewed(first)
    assert await _id(ring) == "AK2"
    assert await ring.renewed(first), "somebody else had them read"
    assert reader.reads == 2
    reader.error = StoreUnavailable("CredentialSourceUnavailable", "down")
    clock.advance(6)
    assert not await ring.renewed(await ring.keys())


async def test_fixed_keys_are_used_until_they_expire(clock: ManualClock) -> None:
    keys = Keys("AK", SECRET, "token", clock.now_ns() + HOUR_NS)
    ring = FixedKeys(keys, clock)
    assert await ring.keys() == keys
    clock.advance(3600)
    with pytest.raises(CredentialsRefused) as caught:
        await ring.keys()
    assert caught.value.code == "CredentialsExpired"
    assert not await ring.renewed(keys)


def test_keys_show_no_secret() -> None:
    assert SECRET not in repr(Keys("AK", SECRET, SECRET))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(
            {
                "access_key_id": "AK",
                "secret_access_key": SECRET,
                "session_token": "token",
                "expire_time": "2030-01-31T12:00:00Z",
            }
        ),
        json.dumps(
            {
                "Version": 1,
                "AccessKeyId": "AK",
                "SecretAccessKey": SECRET,
                "SessionToken": "token",
                "Expiration": "2030-01-31T13:00:00+01:00",
            }
        ),
        json.dumps({"SecretId": "AK", "SecretKey": SECRET, "Token": "token", "expires": 1896091200}),
        f"[default]\naws_access_key_id = AK\naws_secret_access_key = {SECRET}\naws_session_token = token\n"
        "x_security_token_expires = 2030-01-31T12:00:00\n[other]\naws_access_key_id = NO\n",
        f"[recorder]\naccess_key_id=AK\nsecret_access_key={SECRET}\nsession_token=token\nexpiration=1896091200\n",
    ],
)
async def test_files_are_read_as_others_write_them(text: str, tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    keys = await FileReader("vault", path, clock).read()
    assert keys == Keys("AK", SECRET, "token", 1896091200 * NANOSECONDS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no section"),
        ("{", "is no JSON"),
        (SECRET, "neither JSON nor ini"),
        (f"[a]\nkey={SECRET}\n[b]\nkey=x\n", "not exactly one"),
        (f'{{"secret_access_key": "{SECRET}"}}', "has no access_key_id"),
        ('{"access_key_id": "AK"}', "has no secret_access_key"),
        (
            f'{{"access_key_id": "AK", "secret_access_key": "{SECRET}", "expiration": "soon"}}',
            "when it expires",
        ),
        (None, "No such file"),
        ("x" * (64 << 10) + "x", "has more than"),
        (b"\xff\xfe", "is no text"),
    ],
)
async def test_files_that_hold_no_keys(
    text: str | bytes | None, says: str, tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CredentialsRefused) as caught:
        await FileReader("vault", path, clock).read()
    assert caught.value.code == "CredentialSourceUnreadable"
    assert says in caught.value.message
    assert "'vault'" in caught.value.message
    assert SECRET not in caught.value.message


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "keys.json"
    sources = _sources([FileSource(name="vault", applications=("app",), path=path)], clock)
    ring = sources.ring("vault", "app")

    def write(access_key_id: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(json.dumps({"access_key_id": access_key_id, "secret_access_key": SECRET}))
        draft.replace(path)

    with pytest.raises(CredentialsRefused):
        await ring.keys()
    write("AK1")
    assert (await ring.keys()).access_key_id == "AK1"
    write("AK2")
    clock.advance(1)
    assert (await ring.keys()).access_key_id == "AK2"
    path.write_text("half wri")
    clock.advance(1)
    assert (await ring.keys()).access_key_id == "AK2"
    write("AK3")
    clock.advance(1)
    assert (await ring.keys()).access_key_id == "AK3"


async def test_a_file_with_keys_that_expired(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps({"access_key_id": "AK", "secret_access_key": SECRET, "expiration": 1_000_000_000})
    )
    sources = _sources([FileSource(name="vault", applications=("*",), path=path)], clock)
    with pytest.raises(CredentialsRefused) as caught:
        await sources.ring("vault", "app").keys()
    assert caught.value.code == "CredentialsExpired"
    assert SECRET not in caught.value.message


async def test_variables_are_the_servers(clock: ManualClock) -> None:
    source = EnvironmentSource(
        name="shell",
        applications=("app",),
        access_key_id="STORE_KEY",
        secret_access_key="STORE_SECRET",
        session_token="STORE_TOKEN",
    )
    variables = {"STORE_KEY": "AK", "STORE_SECRET": SECRET, "STORE_TOKEN": "token"}
    assert await EnvironmentReader(source, variables).read() == Keys("AK", SECRET, "token")
    with pytest.raises(CredentialsRefused, match="STORE_SECRET and STORE_TOKEN") as caught:
        await EnvironmentReader(source, {"STORE_KEY": "AK", "STORE_TOKEN": ""}).read()
    assert "AK" not in caught.value.message


async def test_sources_are_for_those_who_may_use_them(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"access_key_id": "AK", "secret_access_key": SECRET}))
    sources = _sources(
        [
            FileSource(name="mine", applications=("app", "b"), path=path),
            FileSource(name="shared", applications=("*",), path=path),
        ],
        clock,
    )
    assert sources.usable("app") == ["mine", "shared"]
    assert sources.usable("other") == ["shared"]
    assert (await sources.ring("mine", "b").keys()).access_key_id == "AK"
    for name in ("mine", "gone"):
        with pytest.raises(CredentialsRefused) as caught:
            await sources.ring(name, "other").keys()
        assert caught.value.code == "CredentialSourceMissing"
    assert _sources([], clock).usable("app") == []


def _sources(sources: list[CredentialSource], clock: ManualClock) -> CredentialSources:
    return make_sources(sources, S3Clients(), clock, os.environ)
