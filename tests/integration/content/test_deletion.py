"""What a task leaves when its files are deleted one after the other."""

import pytest

from roomtape.client import Client, RoomtapeError
from roomtape.v1 import file_pb2, media_pb2, segment_pb2
from tests.support.hearing import path_of
from tests.support.stage import PCM, Speaker, Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_manifest_goes_with_the_last_file(client: Client) -> None:
    stage = Stage(client, "deletion")
    await stage.record(singles=[media_pb2.CONTAINER_WAV], segment_seconds=1)
    await stage.join(Speaker("ada", 440, PCM))
    await stage.talk(1.5, *stage.speakers)
    files = await stage.end()
    request = file_pb2.GetManifestRequest(app_id="app", task_id=stage.task_id)
    manifest = (await client.files.GetManifest(request)).manifest
    path = path_of(segment_pb2.Segment(url=manifest.url))
    for file in files[:-1]:
        await _delete(client, file)

    async def tells_of_the_deletion() -> bool:
        return (await client.files.GetManifest(request)).manifest.sha256 != manifest.sha256

    await eventually(tells_of_the_deletion, "the manifest was written again")
    await _delete(client, files[-1])

    async def is_gone() -> bool:
        try:
            await client.files.GetManifest(request)
        except RoomtapeError:
            return not path.exists()
        return False

    await eventually(is_gone, "the manifest has gone")
    with pytest.raises(RoomtapeError, match="any more") as caught:
        await client.files.GetManifest(request)
    assert caught.value.reason_name == "MANIFEST_NOT_FOUND"


async def _delete(client: Client, file: segment_pb2.Segment) -> None:
    await client.files.DeleteFile(file_pb2.DeleteFileRequest(app_id="app", file_id=file.file_id))
    assert not path_of(file).exists()
