"""GetManifest over a real channel: before there is a manifest, from a folder, from a bucket, and from nowhere."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest

from roomtape.v1 import file_pb2
from roomtape_service.database import manifests
from roomtape_service.manifest.reading import is_as_written, read_manifest
from roomtape_service.manifest.writer import ManifestWriter
from tests.support.databases import APP
from tests.support.library import OTHER, TASK, Library, open_library, refusal, trusting
from tests.support.rclone import Loopback, RcloneServer
from tests.support.stores import rclone_settings
from tests.support.waiting import eventually

REQUEST = file_pb2.GetManifestRequest(app_id=APP, task_id=TASK)


@pytest.fixture
async def library(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Library]:
    url = f"sqlite:///{tmp_path}/test.db"
    async with open_library(tmp_path, url, authority=rclone.authority) as opened:
        yield opened


@asynccontextmanager
async def writing(library: Library) -> AsyncIterator[None]:
    """Manifests are written while the block runs, and before it."""
    writer = ManifestWriter(
        library.database, library.stores, library.clock, service_version="1", randomness=random.Random(1)
    )
    running = asyncio.create_task(writer.run())

    async def is_written() -> bool:
        row = await library.database.read(lambda connection: manifests.find(connection, APP, TASK))
        return row is not None and row.written == row.wanted

    await eventually(is_written, "the manifest is written")
    yield
    await writer.aclose()
    await running


async def test_before_it_is_written(library: Library) -> None:
    code, reason = await refusal(library.stub.GetManifest(REQUEST))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "MANIFEST_NOT_FOUND")
    async with writing(library):
        assert (await library.stub.GetManifest(REQUEST)).manifest.task_id == TASK


async def test_of_another_application(library: Library) -> None:
    async with writing(library):
        foreign = file_pb2.GetManifestRequest(app_id=OTHER, task_id=TASK)
        assert await refusal(library.stub.GetManifest(foreign)) == (
            grpc.StatusCode.NOT_FOUND,
            "TASK_NOT_FOUND",
        )


async def test_from_a_bucket(library: Library, rclone: RcloneServer) -> None:
    await library.set_storage(rclone_settings(rclone))
    (file,) = await library.add("anna")
    async with writing(library):
        reply = await library.stub.GetManifest(REQUEST)
    assert (
        reply.manifest.url
        == f"s3://{rclone_settings(rclone).object_store.bucket}/app_room/{TASK}/manifest.json"
    )
    assert not reply.manifest.complete
    connector = aiohttp.TCPConnector(resolver=Loopback(), ssl=trusting(rclone.authority))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(reply.playback_url) as answer,
    ):
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        data = await answer.read()
    assert is_as_written(data)
    manifest = read_manifest(data)
    (stored,) = manifest.recordings[0].segments[0].files
    assert stored.file_id == file.file_id
    assert stored.url == f"{reply.manifest.url.rpartition('/app_room/')[0]}/{file.object_key}"


async def test_where_settings_lead_no_more(library: Library, rclone: RcloneServer) -> None:
    await library.set_storage(rclone_settings(rclone))
    async with writing(library):
        pass
    await library.set_storage(rclone_settings(rclone, bucket="another-bucket"))
    code, reason = await refusal(library.stub.GetManifest(REQUEST))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "MANIFEST_NOT_FOUND")
