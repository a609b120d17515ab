"""Which storage settings are refused, and what is said of them."""

from collections.abc import Callable

import pytest

from roomtape.v1 import error_pb2, storage_pb2
from roomtape_service.errors import Refusal
from roomtape_service.storage.settings import check_settings, complete_settings, require_valid

S3 = storage_pb2.STORAGE_VENDOR_S3
COS = storage_pb2.STORAGE_VENDOR_COS
TOS = storage_pb2.STORAGE_VENDOR_TOS

Change = Callable[[storage_pb2.StorageSettings], None]


def _bucket(
    vendor: storage_pb2.StorageVendor.ValueType = S3,
    bucket: str = "tapes",
    region: str = "eu-central-1",
    endpoint: str = "",
    path_style: bool | None = None,
    prefix: str = "",
) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        prefix=prefix,
        object_store=storage_pb2.ObjectStore(
            vendor=vendor,
            bucket=bucket,
            region=region,
            endpoint=endpoint,
            path_style=path_style,
            credentials=storage_pb2.StorageCredentials(
                access_key_id="AKID", secret_access_key=storage_pb2.Secret(value="secret")
            ),
        ),
    )


def _disk(folder: str = "", prefix: str = "") -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder=folder), prefix=prefix)


@pytest.mark.parametrize(
    "settings",
    [
        _disk(),
        _disk("a-b_c.d"),
        _disk("~2E."),
        _disk(prefix="a/b-c/d_e.f"),
        _disk(prefix="a/"),
        _disk(prefix="a" * 255 + "/" + "b" * 255),
        _bucket(),
        _bucket(COS, "tapes-1250000000", "ap-guangzhou"),
        _bucket(COS, "tapes-1250000000", "ap-guangzhou", "https://cos-internal.ap-guangzhou.tencentcos.cn"),
        _bucket(TOS, "tapes", "cn-beijing"),
        _bucket(TOS, "tapes", "cn-beijing", "https://tos-s3-cn-beijing.ivolces.com"),
        _bucket(endpoint="http://127.0.0.1:8333", path_style=True),
        _bucket(endpoint="http://[::1]:8333/", path_style=True),
        _bucket(bucket="a.b.c", path_style=True),
    ],
)
def test_settings_that_may_work(settings: storage_pb2.StorageSettings) -> None:
    assert check_settings(settings) == []


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        (storage_pb2.StorageSettings(), "storage", "set `disk` or `object_store`"),
        (_disk(".."), "storage.disk.folder", "is no folder"),
        (_disk("a/b"), "storage.disk.folder", "is no folder"),
        (_disk("a" * 200), "storage.disk.folder", "is no folder"),
        (_disk(".parts"), "storage.disk.folder", "is no folder"),
        (_disk(prefix="/a"), "storage.prefix", "starts with a slash"),
        (_disk(prefix="a//b"), "storage.prefix", "empty part"),
        (_disk(prefix="a/../b"), "storage.prefix", "starts with a dot"),
        (_disk(prefix="a/.b"), "storage.prefix", "starts with a dot"),
        (_disk(prefix="a b"), "storage.prefix", "other characters"),
        (_disk(prefix="ä"), "storage.prefix", "other characters"),
        (_disk(prefix="a" * 256), "storage.prefix", "over 255 bytes"),
        (_disk(prefix="a/" * 257), "storage.prefix", "longer than 512 bytes"),
        (
            _bucket(storage_pb2.STORAGE_VENDOR_UNSPECIFIED),
            "storage.object_store.vendor",
            "STORAGE_VENDOR_COS",
        ),
        (_bucket(bucket=""), "storage.object_store.bucket", "3 to 63"),
        (_bucket(bucket="Tapes"), "storage.object_store.bucket", "lower-case"),
        (_bucket(bucket="a.b.c"), "storage.object_store.bucket", "has a dot"),
        (_bucket(COS, "tapes", "ap-guangzhou"), "storage.object_store.bucket", "APPID"),
        (_bucket(region=""), "storage.object_store.region", "is no region"),
        (_bucket(region="EU West"), "storage.object_store.region", "lower case"),
        (_bucket(endpoint="s3.example.com"), "storage.object_store.endpoint", "scheme and host"),
        (_bucket(endpoint="ftp://s3.example.com"), "storage.object_store.endpoint", "scheme and host"),
        (_bucket(endpoint="https://s3.example.com/x"), "storage.object_store.endpoint", "leave the rest out"),
        (_bucket(endpoint="https://s3.example.com:99999"), "storage.object_store.endpoint", "is no URL"),
        (_bucket(endpoint="https://s3.example.com\n"), "storage.object_store.endpoint", "scheme and host"),
        (_bucket(endpoint="http://10.0.0.1"), "storage.object_store.path_style", "set it"),
        (
            _bucket(
                COS,
                "tapes-1250000000",
                "ap-guangzhou",
                "https://tapes-1250000000.cos.ap-guangzhou.myqcloud.com",
            ),
            "storage.object_store.endpoint",
            "leave the bucket out",
        ),
        (
            _bucket(TOS, "tapes", "cn-beijing", "https://tos-cn-beijing.volces.com"),
            "storage.object_store.endpoint",
            "does not speak S3",
        ),
        (
            _bucket(TOS, "tapes", "cn-beijing", "https://tapes.tos-s3-cn-beijing.volces.com"),
            "storage.object_store.endpoint",
            "leave the bucket out",
        ),
        (
            _bucket(TOS, "tapes", "cn-beijing", path_style=True),
            "storage.object_store.path_style",
            "leave it unset",
        ),
    ],
)
def test_settings_that_cannot_work(settings: storage_pb2.StorageSettings, field: str, says: str) -> None:
    (violation,) = check_settings(settings)
    assert violation.field == field
    assert says in violation.description


def test_all_faults_are_said_at_once_and_no_secret() -> None:
    settings = _bucket(COS, "x", "", "https://user:password@cos.ap-guangzhou.myqcloud.com", True, "/")
    credentials = settings.object_store.credentials
    credentials.access_key_id = ""
    credentials.secret_access_key.value = "sec ret"
    credentials.session_token.value = "to ken"
    with pytest.raises(Refusal) as caught:
        require_valid(settings, "application.storage")
    refusal = caught.value
    assert refusal.reason == error_pb2.ERROR_REASON_INVALID_STORAGE_SETTINGS
    assert [violation.field for violation in refusal.fields] == [
        "application.storage.prefix",
        "application.storage.object_store.bucket",
        "application.storage.object_store.region",
        "application.storage.object_store.endpoint",
        "application.storage.object_store.path_style",
        "application.storage.object_store.credentials.access_key_id",
        "application.storage.object_store.credentials.secret_access_key.value",
        "application.storage.object_store.credentials.session_token.value",
    ]
    for secret in ("password", "sec ret", "to ken"):
        assert secret not in refusal.message


@pytest.mark.parametrize(("app_id", "folder"), [("app", "app"), ("..", "~2E."), ("a.b-c", "a.b-c")])
def test_an_application_has_a_folder_of_its_own(app_id: str, folder: str) -> None:
    complete = complete_settings(storage_pb2.StorageSettings(), app_id)
    assert complete.disk.folder == folder
    assert check_settings(complete) == []
    assert complete_settings(_disk("shared"), app_id).disk.folder == "shared"
    assert complete_settings(_bucket(), app_id) == _bucket()
