"""FileService over a real channel, and playback over real HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import file_pb2, media_pb2, segment_pb2
from tests.support.databases import APP, ROOM
from tests.support.library import OTHER, TASK, Library, open_library, refusal, trusting
from tests.support.rclone import Loopback, RcloneServer
from tests.support.stores import rclone_settings, weed_settings
from tests.support.weed import WeedServer

START_SECONDS = 1_675_930_605


@pytest.fixture
async def library(
    tmp_path: Path, rclone: RcloneServer, request: pytest.FixtureRequest
) -> AsyncIterator[Library]:
    tls = getattr(request, "param", "") == "tls"
    url = f"sqlite:///{tmp_path}/test.db"
    async with open_library(tmp_path, url, authority=rclone.authority, tls=tls) as opened:
        yield opened


async def test_lists_what_is_stored(library: Library) -> None:
    files = await library.add("anna", "ben", "carl")
    await library.add("anna", app_id=OTHER, task_id="2000")
    (spooled,) = await library.spool.add(APP, TASK, user_id="dora")
    listed = await library.list()
    assert [file.file_id for file in listed] == [file.file_id for file in files]
    assert spooled.file_id not in {file.file_id for file in listed}
    assert (listed[0].object_key, listed[0].room_id, listed[0].user_id) == (files[0].object_key, ROOM, "anna")
    for conditions, users in (
        ({"user_id": "ben"}, ["ben"]),
        ({"room_id": ROOM}, ["anna", "ben", "carl"]),
        ({"room_id": "another"}, []),
        ({"task_id": TASK}, ["anna", "ben", "carl"]),
        ({"task_id": "2000"}, []),
        ({"key_prefix": f"{APP}_{ROOM}_b"}, ["ben"]),
        ({"key_prefix": f"{APP.upper()}_{ROOM}_b"}, []),
        ({"key_prefix": "%"}, []),
        ({"start_time": Timestamp(seconds=START_SECONDS)}, ["anna", "ben", "carl"]),
        ({"start_time": Timestamp(seconds=START_SECONDS + 2)}, []),
        ({"end_time": Timestamp(seconds=START_SECONDS)}, []),
        ({"end_time": Timestamp(seconds=START_SECONDS + 1)}, ["anna", "ben", "carl"]),
    ):
        assert [file.user_id for file in await library.list(**conditions)] == users, conditions


async def test_pages_hold_everything_once(library: Library) -> None:
    files = await library.add(*(f"user-{n}" for n in range(5)))
    found: list[str] = []
    token = ""
    for _ in range(3):
        request = file_pb2.ListFilesRequest(app_id=APP, page_size=2, page_token=token)
        page = await library.stub.ListFiles(request)
        found += [file.file_id for file in page.files]
        token = page.next_page_token
    assert token == ""
    assert found == [file.file_id for file in files]


async def test_one_tenant_sees_nothing_of_another(library: Library) -> None:
    (file,) = await library.add("anna", app_id=OTHER, task_id="2000")
    assert await library.list() == []
    get = library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP, file_id=file.file_id))
    assert await refusal(get) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    play = library.stub.CreatePlaybackUrl(file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=file.file_id))
    assert await refusal(play) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")


async def test_a_file_is_shown_in_any_state_and_played_when_stored(library: Library) -> None:
    (file,) = await library.spool.add(APP, TASK)
    shown = await library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP, file_id=file.file_id))
    assert shown.file.state == segment_pb2.SEGMENT_STATE_SPOOLED
    assert (shown.file.size_bytes, shown.file.url) == (len(file.data), "")
    play = library.stub.CreatePlaybackUrl(file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=file.file_id))
    assert await refusal(play) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")


@pytest.mark.parametrize("library", ["plain", "tls"], indirect=True)
async def test_disk_files_play_with_ranges(library: Library, tmp_path: Path) -> None:
    (file,) = await library.add("ä/🎙 _~", containers=[media_pb2.CONTAINER_OGG])
    url = await library.url(file)
    authority = tmp_path / "authority.pem"
    verify = trusting(authority) if url.startswith("https") else True
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=verify) as answer:
            assert answer.status == 200
            assert await answer.read() == file.data
            assert answer.headers["Content-Type"] == "audio/ogg"
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "inline; filename*=" in answer.headers["Content-Disposition"]
        async with session.get(url, headers={"Range": "bytes=100-199"}, ssl=verify) as answer:
            assert answer.status == 206
            assert await answer.read() == file.data[100:200]
            assert answer.headers["Content-Range"] == f"bytes 100-199/{len(file.data)}"
        async with session.head(url, ssl=verify) as answer:
            assert answer.headers["Content-Length"] == str(len(file.data))


async def test_ranges_and_conditions_are_those_of_http(library: Library) -> None:
    (file,) = await library.add("anna", containers=[media_pb2.CONTAINER_WAV])
    url, size = await library.url(file), len(file.data)
    async with aiohttp.ClientSession() as session:
        async with session.head(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            etag, modified = answer.headers["ETag"], answer.headers["Last-Modified"]
            assert answer.headers["Content-Type"] == "audio/wav"
        for headers, status, data in (
            ({"Range": "bytes=-100"}, 206, file.data[-100:]),
            ({"Range": "bytes=19000-"}, 206, file.data[19_000:]),
            ({"Range": f"bytes=0-{size * 2}"}, 206, file.data),
            ({"Range": f"bytes={size}-"}, 416, None),
            ({"Range": "bytes=5-2"}, 416, None),
            ({"Range": "bytes=0-9", "If-Range": etag}, 206, file.data[:10]),
            ({"Range": "bytes=0-9", "If-Range": modified}, 206, file.data[:10]),
            ({"Range": "bytes=0-9", "If-Range": '"another"'}, 200, file.data),
            ({"Range": "bytes=0-9", "If-Range": f"W/{etag}"}, 200, file.data),
            ({"Range": "bytes=0-9", "If-Range": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200, file.data),
            ({"If-None-Match": etag}, 304, b""),
            ({"If-Match": '"another"'}, 412, None),
            ({"If-Modified-Since": modified}, 304, b""),
        ):
            async with session.get(url, headers=headers) as answer:
                assert answer.status == status, headers
                assert data is None or await answer.read() == data, headers
        for method in ("POST", "PUT", "DELETE"):
            async with session.request(method, url) as answer:
                assert answer.status == 405


async def test_urls_open_one_file_for_a_time(library: Library) -> None:
    first, second = await library.add("anna", "ben")
    url = await library.url(first)
    signed = urlsplit(url).query
    expires = parse_qs(signed)["expires"][0]
    async with aiohttp.ClientSession() as session:
        for wrong in (
            url.replace("_anna/", "_ben/"),
            url.replace(f"/play/{APP}/", f"/play/{OTHER}/"),
            url.replace(f"expires={expires}", f"expires={int(expires) + 1}"),
            url.replace(f"expires={expires}", "expires=²"),
            url.replace("signature=", "signature=A"),
            url.partition("?")[0],
            url.partition("/play/")[0] + f"/play/..%2F..%2Fsecret.key/x?{signed}",
        ):
            async with session.get(wrong) as answer:
                assert answer.status in (403, 404), wrong
                assert first.data not in await answer.read()
        library.clock.advance(59)
        async with session.get(url) as answer:
            assert answer.status == 200
        library.clock.advance(1)
        async with session.get(url) as answer:
            assert answer.status == 403
            assert "expired" in await answer.text()
        url = await library.url(second)
        await library.stores.disk(APP).delete(second.object_key)
        async with session.get(url) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("server", ["weed", "rclone"])
async def test_buckets_play_by_urls_of_their_own(
    library: Library, weed: WeedServer, rclone: RcloneServer, server: str
) -> None:
    await library.set_storage(weed_settings(weed) if server == "weed" else rclone_settings(rclone))
    (file,) = await library.add("anna")
    url = await library.url(file)
    connector = aiohttp.TCPConnector(resolver=Loopback())
    async with aiohttp.ClientSession(connector=connector) as session:
        verify = trusting(rclone.authority) if server == "rclone" else True
        async with session.get(url, ssl=verify) as answer:
            assert await answer.read() == file.data


async def test_files_of_a_store_that_was_left(library: Library, weed: WeedServer) -> None:
    (on_disk,) = await library.add("anna")
    await library.set_storage(weed_settings(weed))
    (in_bucket,) = await library.add("ben")
    async with aiohttp.ClientSession() as session, session.get(await library.url(on_disk)) as answer:
        assert await answer.read() == on_disk.data
    await library.set_storage(weed_settings(weed, bucket="another-bucket"))
    play = library.stub.CreatePlaybackUrl(
        file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=in_bucket.file_id)
    )
    assert await refusal(play) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")


async def test_what_cannot_be_asked(library: Library) -> None:
    lifetime = Duration(seconds=8 * 24 * 3600)
    for call, reason in (
        (library.stub.ListFiles(file_pb2.ListFilesRequest()), "FIELD_REQUIRED"),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id="nobody")), "APPLICATION_NOT_FOUND"),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, page_size=-1)), "INVALID_VALUE"),
        (
            library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, page_token="x")),
            "INVALID_PAGE_TOKEN",
        ),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, task_id="x")), "INVALID_ID"),
        (library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP)), "FIELD_REQUIRED"),
        (
            library.stub.CreatePlaybackUrl(
                file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id="x", lifetime=lifetime)
            ),
            "INVALID_VALUE",
        ),
    ):
        assert (await refusal(call))[1] == reason
