"""A whole server whose operator defined where credentials come from."""

import asyncio
import json
from pathlib import Path

import pytest

from roomtape.client import Client
from roomtape.client.errors import InvalidArgument
from roomtape.v1 import application_pb2, media_pb2, room_pb2, segment_pb2, storage_pb2, task_pb2
from tests.support.server import running_server
from tests.support.stores import make_stores, weed_settings
from tests.support.weed import WeedServer

APP = "app"
CLIP = Path(__file__).parents[2] / "service" / "roomtape_service" / "demo" / "ada.opus"


def _named(weed: WeedServer, source: str) -> storage_pb2.StorageSettings:
    settings = weed_settings(weed)
    settings.prefix = "by-source"
    settings.object_store.credentials.Clear()
    settings.object_store.credentials.source = source
    return settings


async def test_files_go_up_by_keys_that_only_the_operator_has(weed: WeedServer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def write(access_key_id: str, secret: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(json.dumps({"access_key_id": access_key_id, "secret_access_key": secret}))
        draft.replace(path)

    write(weed.access_key_id, weed.secret_access_key)
    shell = {"type": "environment", "access_key_id": "STORE_KEY", "secret_access_key": "STORE_SECRET"}
    sources = {
        "vault": {"type": "file", "path": str(path), "applications": [APP]},
        "shell": {**shell, "applications": [APP, "other"]},
        "private": {**shell, "applications": ["other"]},
    }
    second_id, second_secret = weed.keys("second")
    environment = {"STORE_KEY": second_id, "STORE_SECRET": second_secret}
    server_of = running_server(
        tmp_path / "data", environment=environment, credential_sources=json.dumps(sources)
    )
    async with server_of as server, Client(server.target) as client:
        with pytest.raises(InvalidArgument) as caught:
            await _update(client, _named(weed, "private"))
        assert "it may use shell, vault" in caught.value.message
        for source in ("shell", "vault"):
            application = await _update(client, _named(weed, source))
            assert application.storage.object_store.credentials.source == source
            request = application_pb2.CheckStorageRequest(app_id=APP)
            assert (await client.applications.CheckStorage(request)).ok
        task_id = await _record(client, "first")
        # The keys of before are as good as gone: rotated while the server runs.
        write(second_id, second_secret)
        others = [await _record(client, f"room-{number}") for number in range(2)]
        for each in (task_id, *others):
            async with asyncio.timeout(30):
                described = await client.wait_until_complete(APP, each)
            assert {segment.state for segment in described.segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
        log = server.log_path.read_text("utf-8")
    for secret in (weed.secret_access_key, second_secret):
        assert secret not in log
        for stored in (tmp_path / "data").rglob("*"):
            if stored.is_file():
                assert secret.encode() not in stored.read_bytes(), stored
    stores = make_stores(tmp_path)
    stored_keys = [found.key for found in await stores.store(weed_settings(weed)).list("by-source/app_")]
    await stores.aclose()
    assert len([key for key in stored_keys if key.endswith(".ogg")]) == 3


async def _update(client: Client, storage: storage_pb2.StorageSettings) -> application_pb2.Application:
    application = application_pb2.Application(app_id=APP, storage=storage)
    request = application_pb2.UpdateApplicationRequest(application=application)
    return (await client.applications.UpdateApplication(request)).application


async def _record(client: Client, room_id: str) -> str:
    clock = room_pb2.ROOM_CLOCK_MEDIA
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=APP, room_id=room_id, clock=clock))
    output = task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_OGG])
    started = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id=APP, room_id=room_id, mode=task_pb2.RECORD_MODE_SINGLE, output=output
        )
    )
    await client.publish_file(CLIP, APP, room_id, "ada", realtime=False)
    stop = task_pb2.StopRecordRequest(app_id=APP, task_id=started.task.task_id)
    await client.recording.StopRecord(stop)
    return started.task.task_id
