"""Credentials that change while files go to a real store, and what an application hears of them."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import timestamp_pb2

from roomtape.v1 import error_pb2, event_pb2, storage_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock, SystemClock
from roomtape_service.database import Database, UnitOfWork, applications, manifests
from roomtape_service.settings_sources import CredentialSource, FileSource, WebIdentitySource
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.credential_readers import make_sources
from roomtape_service.storage.credentials import CredentialSources
from roomtape_service.storage.expiring import ExpiringCredentials
from roomtape_service.storage.renewing import RenewedCredentials
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.store import (
    CredentialsRefused,
    ObjectMissing,
    PermissionRefused,
    StoreUnavailable,
)
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.upload import Uploads
from tests.support.databases import APP, add_tasks, clock, database, database_url, postgres
from tests.support.servers import free_ports
from tests.support.spooled import TestSpool, events_of_type
from tests.support.stores import BUCKET, SECRET_KEY, weed_settings
from tests.support.uploading import QUICK
from tests.support.waiting import eventually
from tests.support.web_identity import ROLE_ARN, Issuer, issuer
from tests.support.weed import WeedServer, weed_server

__all__ = ["clock", "database", "database_url", "postgres"]

TYPE = "audio/mpeg"
LARGE_BYTES = 12 << 20
WARNING = event_pb2.EVENT_TYPE_WARNING


@pytest.fixture(scope="module")
def vouching() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture(scope="module")
def role_server(vouching: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeedServer]:
    """SeaweedFS that gives keys for a role to who has a token of the issuer."""
    with weed_server(tmp_path_factory.mktemp("roles"), BUCKET, access=vouching.access()) as server:
        yield server


@asynccontextmanager
async def _stores(
    root: Path, clock: ManualClock, *sources: CredentialSource
) -> AsyncIterator[tuple[Stores, S3Clients]]:
    clients = S3Clients()
    stores = Stores(
        root,
        SecretBox(SECRET_KEY),
        clients=clients,
        sources=make_sources(sources, clients, clock, {}),
        clock=clock,
        randomness=random.Random(1),
    )
    try:
        yield stores, clients
    finally:
        await stores.aclose()


def _settings(server: WeedServer, source: str) -> storage_pb2.StorageSettings:
    settings = weed_settings(server)
    settings.object_store.credentials.Clear()
    settings.object_store.credentials.source = source
    return settings


def _now() -> ManualClock:
    """Real time, which stands still: servers look at signatures' times and tokens' ends."""
    return ManualClock(SystemClock().now_ns())


def _write(path: Path, keys: tuple[str, str]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"access_key_id": keys[0], "secret_access_key": keys[1]}))
    draft.replace(path)


async def test_keys_are_rotated_while_a_file_is_written(weed: WeedServer, tmp_path: Path) -> None:
    path, manual = tmp_path / "keys.json", _now()
    first = (weed.access_key_id, weed.secret_access_key)
    _write(path, first)
    vault = FileSource(name="vault", applications=(APP,), path=path)
    async with _stores(tmp_path, manual, vault) as (stores, clients):
        store = stores.store(_settings(weed, "vault"), app_id=APP)
        upload_id = await store.begin_parts("rotated/a.mp3", TYPE)
        parts = [random.Random(number).randbytes(5 << 20) for number in range(4)]
        tags: dict[int, str] = {}
        for number, data in enumerate(parts, start=1):
            # The older keys go on working for a while; new ones are used within a second.
            _write(path, weed.keys("second") if number % 2 else first)
            manual.advance(1)
            tags[number] = await store.put_part("rotated/a.mp3", upload_id, number, data)
            assert clients.open_clients == 1, "clients of older keys are closed"
        whole = b"".join(parts)
        await store.complete_parts("rotated/a.mp3", upload_id, tags, len(whole))
        assert await store.read("rotated/a.mp3", 0, len(whole)) == whole


async def test_keys_that_were_revoked_are_read_anew_at_once(weed: WeedServer, tmp_path: Path) -> None:
    path, manual = tmp_path / "keys.json", _now()
    _write(path, ("AKROOMTAPEREVOKED001", "gone"))
    async with _stores(tmp_path, manual, FileSource(name="vault", applications=("*",), path=path)) as (
        stores,
        _,
    ):
        store = stores.store(_settings(weed, "vault"), app_id=APP)
        with pytest.raises(CredentialsRefused) as caught:
            await store.put_bytes("revoked/a.mp3", b"x", TYPE)
        assert caught.value.code == "InvalidAccessKeyId"
        # It was looked at a moment ago, and changes now: what the store says makes it be read again. The answer to a
        # HEAD does not say what is wrong.
        manual.advance(5)
        with pytest.raises(PermissionRefused):
            await store.head("revoked/a.mp3")
        _write(path, (weed.access_key_id, weed.secret_access_key))
        manual.advance(0.5)
        with pytest.raises(PermissionRefused):
            await store.head("revoked/a.mp3")
        manual.advance(5)
        with pytest.raises(ObjectMissing):
            await store.head("revoked/a.mp3")


def _pod(server: WeedServer, token_file: Path, **changes: object) -> WebIdentitySource:
    values: Mapping[str, object] = {
        "name": "pod",
        "applications": (APP,),
        "role_arn": ROLE_ARN,
        "token_file": token_file,
        "sts_endpoint": server.endpoint,
        "sts_region": "us-east-1",
        "session_name": "roomtape",
        "duration_seconds": 900,
        **changes,
    }
    return WebIdentitySource(**values)  # type: ignore[arg-type]


async def test_a_token_is_exchanged_for_keys_of_a_role(
    role_server: WeedServer, vouching: Issuer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token_file, manual = tmp_path / "token", _now()
    token_file.write_text(vouching.token() + "\n")
    source, data = tmp_path / "source", random.Random(1).randbytes(LARGE_BYTES)
    source.write_bytes(data)
    async with _stores(tmp_path, manual, _pod(role_server, token_file)) as (stores, clients):
        store = stores.store(_settings(role_server, "pod"), app_id=APP)
        await store.put("role/a.wav", source, hashlib.sha256(data).hexdigest(), "audio/wav")
        assert await store.read("role/a.wav", 0, len(data)) == data
        ring = stores.keys_of("pod", APP)
        before = await ring.keys()
        assert before.session_token
        assert before.expire_ns is not None
        assert abs(before.expire_ns - manual.now_ns() - 900 * NANOSECONDS) < 60 * NANOSECONDS
        assert token_file.read_text().strip() not in repr(before)
        # Two thirds of their time later others are asked for, with the token that is there then.
        token_file.write_text(vouching.token())
        manual.advance(601)
        await store.put_bytes("role/b.mp3", b"x", TYPE)
        after = await ring.keys()
        assert after.access_key_id != before.access_key_id
        assert clients.open_clients == 1
    said = "".join(capsys.readouterr())
    assert "credentials_renewed" in said
    for keys in (before, after):
        assert keys.secret_access_key not in said
        assert keys.session_token not in said


@pytest.mark.parametrize(
    ("token", "changes", "kind", "code"),
    [
        ("{audience}", {}, CredentialsRefused, "CredentialSourceRefused"),
        ("no.real.token", {}, CredentialsRefused, "CredentialSourceRefused"),
        ("{token}", {"role_arn": "arn:aws:iam::role/Other"}, CredentialsRefused, "CredentialSourceRefused"),
        ("", {}, CredentialsRefused, "CredentialSourceUnreadable"),
        (None, {}, CredentialsRefused, "CredentialSourceUnreadable"),
        (
            "{token}",
            {"sts_endpoint": "http://127.0.0.1:{port}"},
            StoreUnavailable,
            "CredentialSourceUnavailable",
        ),
    ],
)
async def test_a_role_that_is_not_given(
    role_server: WeedServer,
    vouching: Issuer,
    tmp_path: Path,
    token: str | None,
    changes: dict[str, str],
    kind: type[CredentialsRefused] | type[StoreUnavailable],
    code: str,
) -> None:
    token_file = tmp_path / "token"
    told = (token or "").format(token=vouching.token(), audience=vouching.token(audience="another"))
    if token is not None:
        token_file.write_text(told)
    if "sts_endpoint" in changes:
        changes = {"sts_endpoint": changes["sts_endpoint"].format(port=free_ports(1)[0])}
    async with _stores(tmp_path, _now(), _pod(role_server, token_file, **changes)) as (stores, _):
        store = stores.store(_settings(role_server, "pod"), app_id=APP)
        with pytest.raises(kind) as caught:
            await store.head("role/none.mp3")
        assert caught.value.code == code
        assert "'pod'" in caught.value.message
        assert not told or told not in caught.value.message


async def test_a_file_of_keys_that_is_mended_ends_the_wait(
    database: Database, weed: WeedServer, tmp_path: Path
) -> None:
    """A store that refused is asked again after half a minute at the earliest; its operator need not wait for that."""
    path, manual = tmp_path / "keys.json", _now()
    _write(path, ("AKROOMTAPEREVOKED001", "gone"))
    vault = FileSource(name="vault", applications=(APP,), path=path)
    clients = S3Clients()
    sources = make_sources([vault], clients, manual, {})
    stores = Stores(
        tmp_path, SecretBox(SECRET_KEY), clients=clients, sources=sources, clock=manual, limits=QUICK
    )
    await add_tasks(database, ["1000"])
    await _set_storage(database, _settings(weed, "vault"))
    spool = TestSpool(database, stores, tmp_path / "spool" / "generation")
    (file,) = await spool.add(APP, "1000")
    uploads = Uploads(database, stores, manual, manifests.changed, remove_stored)
    running = asyncio.create_task(uploads.run())
    await eventually(lambda: APP in uploads.statistics().troubles, "the store refused")
    watch = RenewedCredentials(sources, uploads.retry_troubled)
    await watch.tick()
    _write(path, (weed.access_key_id, weed.secret_access_key))
    manual.advance(5)
    await watch.tick()
    await eventually(lambda: spool.is_uploaded(file), "the file is uploaded")
    await uploads.aclose()
    await running
    await stores.aclose()


async def test_a_source_is_not_for_everybody(weed: WeedServer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _write(path, (weed.access_key_id, weed.secret_access_key))
    async with _stores(tmp_path, _now(), FileSource(name="vault", applications=(APP,), path=path)) as (
        stores,
        _,
    ):
        assert (list(stores.offer(APP).sources), list(stores.offer("other").sources)) == (["vault"], [])
        with pytest.raises(CredentialsRefused) as caught:
            await stores.store(_settings(weed, "vault"), app_id="other").head("x")
        assert caught.value.code == "CredentialSourceMissing"


async def _set_storage(database: Database, settings: storage_pb2.StorageSettings) -> None:
    sealed = SecretBox(SECRET_KEY).seal(APP, settings).SerializeToString()

    async def work(unit: UnitOfWork) -> None:
        record = await applications.get(unit.connection, APP)
        await applications.change(unit, replace(record, storage=sealed))

    await database.write(work)


def _expiring(server: WeedServer, expire_ns: int) -> storage_pb2.StorageSettings:
    settings = weed_settings(server)
    settings.object_store.credentials.session_token.value = "token"
    settings.object_store.credentials.expire_time.CopyFrom(
        timestamp_pb2.Timestamp(seconds=expire_ns // NANOSECONDS)
    )
    return settings


async def test_an_application_is_warned_before_its_credentials_expire(
    database: Database, clock: ManualClock, weed: WeedServer
) -> None:
    expire_ns = clock.now_ns() + 3600 * NANOSECONDS
    await _set_storage(database, _expiring(weed, expire_ns))
    component = ExpiringCredentials(database, CredentialSources(), clock)
    clock.advance(3600 - 601)
    await component.tick()
    assert await events_of_type(database, WARNING) == []
    clock.advance(1)
    await component.tick()
    await component.tick()
    (event,) = await events_of_type(database, WARNING)
    assert (event.app_id, event.warning.reason) == (APP, error_pb2.ERROR_REASON_CREDENTIALS_EXPIRING)
    assert timestamp_pb2.Timestamp(seconds=expire_ns // NANOSECONDS).ToJsonString() in event.warning.message
    # Another node, or this one after a restart, tells it no second time.
    component = ExpiringCredentials(database, CredentialSources(), clock)
    await component.tick()
    assert len(await events_of_type(database, WARNING)) == 1
    # New ones, in the second store too: each time is told once.
    later = _expiring(weed, clock.now_ns() + 7200 * NANOSECONDS)
    second = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="first"))
    second.secondary.object_store.CopyFrom(later.object_store)
    await _set_storage(database, second)
    await component.tick()
    assert len(await events_of_type(database, WARNING)) == 1
    clock.advance(7200 - 600)
    await component.tick()
    _, event = await events_of_type(database, WARNING)
    assert "secondary store" in event.warning.message


async def test_an_application_is_warned_of_a_source_that_fails(
    database: Database, clock: ManualClock, weed: WeedServer, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    entries = {
        "access_key_id": "AK",
        "secret_access_key": "x",
        "expiration": clock.now_ns() // NANOSECONDS + 1200,
    }
    path.write_text(json.dumps(entries))
    vault = FileSource(name="vault", applications=(APP,), path=path)
    sources = make_sources([vault], S3Clients(), clock, {})
    await _set_storage(database, _settings(weed, "vault"))
    component = ExpiringCredentials(database, sources, clock)
    await sources.ring("vault", APP).keys()
    path.unlink()
    clock.advance(900)
    await component.tick()
    assert await events_of_type(database, WARNING) == [], "it was not asked since"
    await sources.ring("vault", APP).keys()
    await component.tick()
    (event,) = await events_of_type(database, WARNING)
    assert "'vault'" in event.warning.message


async def test_warnings_go_on_until_they_are_closed(
    database: Database, clock: ManualClock, weed: WeedServer
) -> None:
    await _set_storage(database, _expiring(weed, clock.now_ns() + NANOSECONDS))
    component = ExpiringCredentials(database, CredentialSources(), clock, interval_seconds=0.01)
    task = asyncio.create_task(component.run())

    async def is_warned() -> bool:
        return bool(await events_of_type(database, WARNING))

    await eventually(is_warned, "the application is warned")
    await component.aclose()
    await task
    await component.aclose()
