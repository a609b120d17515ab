"""What goes over the wire to each vendor, compared with committed files.

UPDATE_GOLDEN=1 writes them anew; look at what changed before you commit it: no vendor's own server is in the tests.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roomtape.v1 import storage_pb2
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.settings import check_settings
from tests.support.stores import make_stores
from tests.support.wire import WireRequest, wire_server

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = "recordings/app_room_u~2F/2023-02-09-16-16-45_0_audio.mp3"
LARGE = bytes(PART_BYTES + 1)


@dataclass(frozen=True)
class Place:
    vendor: storage_pb2.StorageVendor.ValueType
    bucket: str
    region: str
    host: str
    storage_class: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    unsigned: bool = False
    """Whether bodies go unsigned over TLS."""


PLACES = {
    "s3": Place(
        storage_pb2.STORAGE_VENDOR_S3,
        "roomtape-tests",
        "eu-central-1",
        "s3.eu-central-1.amazonaws.com",
        "STANDARD_IA",
        {"team": "a/b", "cost:centre": "x=1+2"},
        unsigned=True,
    ),
    "cos": Place(
        storage_pb2.STORAGE_VENDOR_COS,
        "roomtape-tests-1250000000",
        "ap-guangzhou",
        "cos.ap-guangzhou.myqcloud.com",
        "MAZ_STANDARD",
        {"team": "a"},
    ),
    "tos": Place(
        storage_pb2.STORAGE_VENDOR_TOS,
        "roomtape-tests",
        "cn-beijing",
        "tos-s3-cn-beijing.volces.com",
        "GLACIER_IR",
        {"team": "a"},
    ),
    "oss": Place(
        storage_pb2.STORAGE_VENDOR_OSS,
        "roomtape-tests",
        "cn-hangzhou",
        "s3.oss-cn-hangzhou.aliyuncs.com",
        unsigned=True,
    ),
    "obs": Place(
        storage_pb2.STORAGE_VENDOR_OBS,
        "roomtape-tests",
        "cn-north-4",
        "obs.cn-north-4.myhuaweicloud.com",
        "STANDARD_IA",
    ),
    "kodo": Place(
        storage_pb2.STORAGE_VENDOR_KODO,
        "roomtape-tests",
        "cn-east-1",
        "s3.cn-east-1.qiniucs.com",
        "LINE",
    ),
}
HOSTS = [f"*.{place.host}" for place in PLACES.values()]

# Of the machine, the library or the moment.
PASSING = {"user-agent", "amz-sdk-invocation-id", "amz-sdk-request"}


@pytest.mark.parametrize("vendor", list(PLACES))
async def test_requests_are_the_vendors(vendor: str, tmp_path: Path) -> None:
    place = PLACES[vendor]
    plain, wishful = _settings(place, wishes=False), _settings(place, wishes=True)
    assert check_settings(plain) == check_settings(wishful) == []
    small = tmp_path / "small"
    small.write_bytes(b"small")
    async with wire_server(tmp_path, HOSTS) as server:
        stores = make_stores(tmp_path, authority=server.authority, port=server.port)
        try:
            store = stores.store(plain)
            await store.put(KEY, small, _sha256(small), "audio/mpeg")
            await store.read(KEY, 10, 5)
            await store.list("recordings/", after=KEY, limit=10)
            upload_id = await store.begin_parts(KEY, "audio/mpeg")
            tags = {
                number: await store.put_part(
                    KEY, upload_id, number, LARGE[(number - 1) * PART_BYTES :][:PART_BYTES]
                )
                for number in (2, 1)
            }
            await store.complete_parts(KEY, upload_id, tags, len(LARGE))
            upload_id = await store.begin_parts(KEY, "audio/mpeg")
            await store.abort_parts(KEY, upload_id)
            await store.delete(KEY)
            url = await store.playback_url(KEY, 3600, {"Content-Type": "audio/mpeg"})
            if wishful != plain:
                store = stores.store(wishful)
                await store.put_bytes(KEY, b"small", "audio/mpeg")
                await store.begin_parts(KEY, "audio/mpeg")
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


@pytest.mark.parametrize("vendor", list(PLACES))
def test_the_vendors_differ_only_where_they_must(vendor: str) -> None:
    place = PLACES[vendor]
    text = (GOLDEN / f"wire_{vendor}.txt").read_text()
    assert f"/{place.region}/s3/aws4_request" in text
    hosts = set(re.findall("^Host: (.*)$", text, re.MULTILINE))
    assert hosts == {f"{place.bucket}.{place.host}"}
    # What makes other vendors than AWS refuse an upload.
    for unwanted in ("aws-chunked", "x-amz-checksum", "transfer-encoding", "\nexpect:", "trailer"):
        assert unwanted not in text.lower()
    bodies = re.findall(r"^\(\d+ bytes\)$", text, re.MULTILINE)
    assert text.count("Content-MD5:") == len(bodies)
    assert text.count("UNSIGNED-PAYLOAD") == (text.count("\nHost: ") if place.unsigned else 0)
    # Only where it is set: once with a whole object, once with a multipart upload.
    assert text.count(f"\nx-amz-storage-class: {place.storage_class}\n") == (2 if place.storage_class else 0)
    assert text.count("\nx-amz-tagging: ") == (2 if place.tags else 0)
    assert ("encoding-type=url" in text) is (vendor not in ("obs", "kodo"))


def _settings(place: Place, *, wishes: bool) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(
            vendor=place.vendor,
            bucket=place.bucket,
            region=place.region,
            storage_class=place.storage_class if wishes else "",
            tags=place.tags if wishes else {},
            credentials=storage_pb2.StorageCredentials(
                access_key_id="AKIDEXAMPLE", secret_access_key=storage_pb2.Secret(value="secret")
            ),
        )
    )


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
