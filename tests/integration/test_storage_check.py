"""CheckStorage: every step on real stores, and what it says when one fails."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from roomtape.v1 import application_pb2, storage_pb2
from roomtape_service.ids import CountedIds
from roomtape_service.storage.bucket import S3Limits
from roomtape_service.storage.check import StorageCheck
from roomtape_service.storage.stores import Stores
from tests.support.rclone import RcloneServer
from tests.support.servers import free_ports
from tests.support.stores import BUCKET, disk_settings, make_stores, rclone_settings, weed_settings
from tests.support.weed import WeedServer

STEPS = ["put", "head", "read", "list", "multipart", "delete"]


@pytest.fixture
async def stores(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Stores]:
    stores = make_stores(tmp_path / "files", authority=rclone.authority)
    yield stores
    await stores.aclose()


async def _check(
    stores: Stores, settings: storage_pb2.StorageSettings
) -> application_pb2.CheckStorageResponse:
    return await StorageCheck(stores, CountedIds()).check(settings)


@pytest.mark.parametrize("server", ["disk", "weed", "rclone"])
async def test_a_store_that_works(
    stores: Stores, weed: WeedServer, rclone: RcloneServer, server: str, tmp_path: Path
) -> None:
    settings = {
        "disk": disk_settings(prefix="a/b"),
        "weed": weed_settings(weed),
        "rclone": rclone_settings(rclone),
    }[server]
    response = await _check(stores, settings)
    assert response.ok
    assert [(step.name, step.ok, step.error_code, step.message) for step in response.steps] == [
        (name, True, "", "") for name in STEPS
    ]
    left = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    left += [
        Path(found.key) for found in await stores.store(weed_settings(weed)).list("roomtape-storage-check")
    ]
    left += [path for path in (rclone.folder / BUCKET).rglob("roomtape-storage-check-*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"access_key_id": "AKROOMTAPEUNKNOWN001"}, "InvalidAccessKeyId", "access_key_id"),
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch", "secret_access_key"),
        ({"bucket": "no-such-bucket"}, "NoSuchBucket", "no-such-bucket"),
    ],
)
@pytest.mark.parametrize("server", ["weed", "rclone"])
async def test_a_store_that_refuses(
    stores: Stores,
    weed: WeedServer,
    rclone: RcloneServer,
    server: str,
    change: dict[str, str],
    code: str,
    says: str,
) -> None:
    settings = weed_settings(weed, **change) if server == "weed" else rclone_settings(rclone, **change)
    response = await _check(stores, settings)
    assert not response.ok
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, code)
    assert says in step.message
    assert settings.object_store.credentials.secret_access_key.value not in step.message.split()


async def test_a_store_that_is_not_there(stores: Stores, weed: WeedServer) -> None:
    (port,) = free_ports(1)
    response = await _check(stores, weed_settings(weed, endpoint=f"http://127.0.0.1:{port}"))
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "ConnectionFailed")
    assert f"127.0.0.1:{port}" in step.message


async def test_a_certificate_that_nobody_trusts(tmp_path: Path, rclone: RcloneServer) -> None:
    stores = make_stores(tmp_path / "files")
    response = await _check(stores, rclone_settings(rclone))
    await stores.aclose()
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "CertificateInvalid")


async def test_buckets_in_the_path_where_the_server_wants_them_in_the_host(
    stores: Stores, rclone: RcloneServer
) -> None:
    settings = rclone_settings(rclone)
    settings.object_store.path_style = True
    assert not (await _check(stores, settings)).ok


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    stores = make_stores(tmp_path / "files")
    response = await _check(stores, disk_settings())
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "ENOTDIR")
    assert str(tmp_path / "files") in step.message


async def test_storage_class_and_tags_are_looked_for(
    stores: Stores, weed: WeedServer, rclone: RcloneServer
) -> None:
    assert (await _check(stores, _wishes(weed_settings(weed)))).ok
    # It takes tags without a word, and keeps none.
    response = await _check(stores, _wishes(rclone_settings(rclone)))
    step = response.steps[1]
    assert (step.name, step.ok, step.error_code) == ("head", False, "TagsIgnored")
    assert "Leave `tags` out" in step.message


def _wishes(settings: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
    settings.object_store.storage_class = "STANDARD_IA"
    settings.object_store.tags.update({"team": "a/b", "cost:centre": "x=1+2"})
    return settings


@pytest.mark.parametrize(
    ("identity", "failing", "says"),
    [
        ("nowrite", {"put"}, "s3:PutObject"),
        # What was put is asked for, before anything is believed.
        ("noread", {"put"}, "s3:GetObject"),
        ("nolist", {"list"}, "Recording and playing work without it"),
    ],
)
async def test_a_key_that_may_not_do_one_thing(
    stores: Stores, weed: WeedServer, identity: str, failing: set[str], says: str
) -> None:
    access_key_id, secret = weed.keys(identity)
    settings = weed_settings(weed, access_key_id=access_key_id, secret_access_key=secret)
    response = await _check(stores, settings)
    assert not response.ok
    assert {step.name for step in response.steps if not step.ok} == failing
    (failed,) = [step for step in response.steps if not step.ok]
    assert failed.error_code in ("AccessDenied", "403")
    assert says in failed.message
    assert secret not in failed.message
    # One that lists nothing is tried to its end.
    assert [step.name for step in response.steps] == (STEPS if failing == {"list"} else ["put"])


async def test_both_stores_are_checked(stores: Stores, weed: WeedServer) -> None:
    settings = disk_settings()
    settings.secondary.object_store.CopyFrom(weed_settings(weed, bucket="no-such-bucket").object_store)
    settings.secondary.prefix = "late"
    response = await _check(stores, settings)
    assert not response.ok
    assert [(step.name, step.secondary, step.ok) for step in response.steps] == [
        *((name, False, True) for name in STEPS),
        ("put", True, False),
    ]
    settings.secondary.object_store.bucket = BUCKET
    response = await _check(stores, settings)
    assert response.ok
    assert [step.name for step in response.steps if step.secondary] == STEPS


@dataclass
class Answers:
    """What a server answers to everything: an HTTP status and a body; None to say nothing."""

    endpoint: str
    status: int = 200
    body: str = "<html><body><p>Welcome<br></body></html>"
    is_silent: bool = False


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    over = asyncio.Event()
    given = Answers("")

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        if given.is_silent:
            await over.wait()
        return web.Response(status=given.status, text=given.body, content_type="text/html")

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    given.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield given
    over.set()
    await runner.cleanup()


_WRONG_REGION = (
    '<?xml version="1.0"?><Error><Code>AuthorizationHeaderMalformed</Code>'
    "<Message>the region is wrong</Message></Error>"
)


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        # What is no S3 interface at all.
        (200, None, "500", "is its S3 interface"),
        (302, None, "302", "is not its endpoint"),
        (404, None, "404", "is the S3 interface"),
        (405, None, "405", "is its S3 interface"),
        # As AWS says it; no server of the tests looks at the region.
        (400, _WRONG_REGION, "AuthorizationHeaderMalformed", "is not in region us-east-1"),
    ],
)
async def test_a_server_that_is_another(
    stores: Stores, weed: WeedServer, answers: Answers, status: int, body: str | None, code: str, says: str
) -> None:
    answers.status = status
    answers.body = body or answers.body
    response = await _check(stores, weed_settings(weed, endpoint=answers.endpoint))
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, code)
    assert says in step.message


async def test_a_server_that_says_nothing(stores: Stores, weed: WeedServer, answers: Answers) -> None:
    answers.is_silent = True
    limits = S3Limits(call_seconds=0.3, attempts=1)
    check = StorageCheck(stores, CountedIds(), limits=limits)
    response = await check.check(weed_settings(weed, endpoint=answers.endpoint))
    (step,) = response.steps
    assert (step.name, step.ok, step.error_code) == ("put", False, "Timeout")
    assert "did not answer in time" in step.message
