"""What goes over the wire to each vendor, compared with committed files.

UPDATE_GOLDEN=1 writes them anew; look at what changed before you commit it: no vendor's own server is in the tests.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from roomtape.v1 import storage_pb2
from roomtape_service.storage.settings import check_settings
from tests.support.stores import make_stores
from tests.support.wire import WireRequest, wire_server

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = "recordings/app_room_u~2F/2023-02-09-16-16-45_0_audio.mp3"
LARGE_BYTES = (8 << 20) + 1

BUCKETS = {
    "s3": (storage_pb2.STORAGE_VENDOR_S3, "roomtape-tests", "eu-central-1"),
    "cos": (storage_pb2.STORAGE_VENDOR_COS, "roomtape-tests-1250000000", "ap-guangzhou"),
    "tos": (storage_pb2.STORAGE_VENDOR_TOS, "roomtape-tests", "cn-beijing"),
}
HOSTS = [
    "*.s3.eu-central-1.amazonaws.com",
    "*.cos.ap-guangzhou.myqcloud.com",
    "*.tos-s3-cn-beijing.volces.com",
]

# Of the machine, the library or the moment.
PASSING = {"user-agent", "amz-sdk-invocation-id", "amz-sdk-request"}


@pytest.mark.parametrize("vendor", list(BUCKETS))
async def test_requests_are_the_vendors(vendor: str, tmp_path: Path) -> None:
    number, bucket, region = BUCKETS[vendor]
    settings = storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(
            vendor=number,
            bucket=bucket,
            region=region,
            credentials=storage_pb2.StorageCredentials(
                access_key_id="AKIDEXAMPLE", secret_access_key=storage_pb2.Secret(value="secret")
            ),
        )
    )
    assert check_settings(settings) == []
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(b"\0" * LARGE_BYTES)
    async with wire_server(tmp_path, HOSTS) as server:
        stores = make_stores(tmp_path, authority=server.authority, port=server.port)
        try:
            store = stores.store(settings)
            await store.put(KEY, small, _sha256(small), "audio/mpeg")
            await store.read(KEY, 10, 5)
            await store.put(KEY, large, _sha256(large), "audio/mpeg", parallel_parts=1)
            await store.delete(KEY)
            url = await store.playback_url(KEY, 3600, {"Content-Type": "audio/mpeg"})
        finally:
            await stores.aclose()
    assert url is not None
    seen = "\n".join(
        [*(_shown(request) for request in server.requests), f"PLAYBACK {_without_signature(url)}\n"]
    )
    golden = GOLDEN / f"wire_{vendor}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(seen)
    assert seen == golden.read_text()


def test_the_vendors_differ_only_where_they_must() -> None:
    for vendor, (_, bucket, region) in BUCKETS.items():
        text = (GOLDEN / f"wire_{vendor}.txt").read_text()
        assert f"/{region}/s3/aws4_request" in text
        assert len(re.findall(rf"^Host: {bucket}\.", text, re.MULTILINE)) == text.count("\nHost: ")
        # What makes other vendors than AWS refuse an upload.
        assert "aws-chunked" not in text
        assert "x-amz-checksum" not in text.lower()
        assert "Expect:" not in text
        assert text.count("Content-MD5:") == 3


def _shown(request: WireRequest) -> str:
    return "\n".join(_lines(request)) + "\n"


def _lines(request: WireRequest) -> Iterator[str]:
    yield f"{request.method} {request.target}"
    for name, value in sorted(request.headers, key=lambda header: header[0].lower()):
        if name.lower() not in PASSING:
            yield f"{name}: {_without_signature(value)}"
    if request.body:
        yield ""
        yield request.body.decode() if request.body.startswith(b"<") else f"({len(request.body)} bytes)"


def _without_signature(text: str) -> str:
    text = re.sub(r"Signature=[0-9a-f]{64}", "Signature=…", text)
    text = re.sub(r"\b\d{8}T\d{6}Z\b", "<time>", text)
    return re.sub(r"(/|%2F)\d{8}(/|%2F)", r"\1<day>\2", text)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
