"""Which storage settings are refused, and what is said of them."""

import dataclasses
from collections.abc import Callable, Mapping

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from roomtape.v1 import error_pb2, storage_pb2
from roomtape_service.errors import Refusal
from roomtape_service.storage.kinds import StoreKinds
from roomtape_service.storage.offer import Offer
from roomtape_service.storage.settings import (
    check_settings,
    complete_settings,
    require_valid,
    secondary_after_ns,
)
from roomtape_service.storage.store import Store
from roomtape_service.storage.vendors import VENDORS

S3 = storage_pb2.STORAGE_VENDOR_S3
COS = storage_pb2.STORAGE_VENDOR_COS
TOS = storage_pb2.STORAGE_VENDOR_TOS
OSS = storage_pb2.STORAGE_VENDOR_OSS
OBS = storage_pb2.STORAGE_VENDOR_OBS
KODO = storage_pb2.STORAGE_VENDOR_KODO

HOUR_NS = 3600 * 10**9

Change = Callable[[storage_pb2.StorageSettings], None]


def _bucket(
    vendor: storage_pb2.StorageVendor.ValueType = S3,
    bucket: str = "tapes",
    region: str = "eu-central-1",
    endpoint: str = "",
    path_style: bool | None = None,
    prefix: str = "",
    storage_class: str = "",
    tags: Mapping[str, str] | None = None,
) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        prefix=prefix,
        object_store=storage_pb2.ObjectStore(
            vendor=vendor,
            bucket=bucket,
            region=region,
            endpoint=endpoint,
            path_style=path_style,
            storage_class=storage_class,
            tags=tags,
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
        _bucket(endpoint="https://s3.eu-central-1.amazonaws.com"),
        _bucket(endpoint="https://s3.dualstack.eu-central-1.amazonaws.com"),
        _bucket(OSS, "tapes", "cn-hangzhou"),
        _bucket(OSS, "tapes", "cn-hangzhou", "https://oss-cn-hangzhou-internal.aliyuncs.com"),
        _bucket(OSS, "tapes", "cn-hangzhou", "https://oss-accelerate.aliyuncs.com"),
        _bucket(OBS, "tapes", "cn-north-4"),
        _bucket(OBS, "tapes", "sa-argentina-1", "https://obs.sa-argentina-1.myhuaweicloud.com"),
        _bucket(KODO, "tapes", "cn-east-1"),
        _bucket(KODO, "tapes", "cn-east-1", "https://s3-cn-east-1.qiniucs.com", path_style=True),
        _bucket(storage_class="STANDARD_IA", tags={"team": "a", "cost:centre/1": "x=1"}),
        _bucket(endpoint="https://s3.example.com", storage_class="COLD"),
        _bucket(KODO, "tapes", "cn-east-1", storage_class="LINE"),
        _bucket(tags={f"key-{number}": "" for number in range(10)}),
    ],
)
def test_settings_that_may_work(settings: storage_pb2.StorageSettings) -> None:
    assert check_settings(settings) == []


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        (storage_pb2.StorageSettings(), "storage", "set `disk`, `object_store` or `custom`"),
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
        (
            _bucket(OSS, "tapes", "cn-hangzhou", path_style=True),
            "storage.object_store.path_style",
            "leave it unset",
        ),
        (
            _bucket(OBS, "tapes", "cn-north-4", path_style=True),
            "storage.object_store.path_style",
            "leave it unset",
        ),
        (_bucket(OSS, "tapes", "oss-cn-hangzhou"), "storage.object_store.region", "`cn-hangzhou`"),
        (_bucket(KODO, "tapes", "z0"), "storage.object_store.region", "`cn-east-1` (z0)"),
        (_bucket(COS, "tapes-1250000000", "gz"), "storage.object_store.region", "`ap-guangzhou`"),
        (_bucket(KODO, "My_Tapes", "cn-east-1"), "storage.object_store.bucket", "not its Kodo name"),
        (
            _bucket(OSS, "tapes", "cn-hangzhou", "https://tapes.oss-cn-hangzhou.aliyuncs.com"),
            "storage.object_store.endpoint",
            "leave the bucket out",
        ),
        (
            _bucket(OBS, "tapes", "cn-north-4", "https://obs.cn-north-1.myhuaweicloud.com"),
            "storage.object_store.endpoint",
            "is in the region cn-north-1",
        ),
        (
            _bucket(KODO, "tapes", "cn-east-1", "https://up-z0.qiniup.com"),
            "storage.object_store.endpoint",
            "does not speak S3",
        ),
        (
            _bucket(endpoint="https://cos.ap-guangzhou.myqcloud.com"),
            "storage.object_store.endpoint",
            "set `vendor` to STORAGE_VENDOR_COS",
        ),
        (_bucket(storage_class="COLD"), "storage.object_store.storage_class", "STANDARD_IA"),
        (_bucket(storage_class="a b"), "storage.object_store.storage_class", "no name"),
        (
            _bucket(OSS, "tapes", "cn-hangzhou", storage_class="STANDARD_IA"),
            "storage.object_store.storage_class",
            "the class of their bucket",
        ),
        (_bucket(KODO, "tapes", "cn-east-1", tags={"a": "b"}), "storage.object_store.tags", "takes no tags"),
        (_bucket(tags={f"key-{n}": "" for n in range(11)}), "storage.object_store.tags", "11 tags are more"),
        (_bucket(tags={"a b": ""}), "storage.object_store.tags", "'a b' is no key"),
        (_bucket(tags={"": "x"}), "storage.object_store.tags", "is no key"),
        (_bucket(tags={"aws:x": "x"}), "storage.object_store.tags", "vendor's own"),
        (_bucket(tags={"a": "x" * 257}), "storage.object_store.tags", "the value of 'a'"),
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


def _with_secondary(
    first: storage_pb2.StorageSettings, second: storage_pb2.SecondaryStore
) -> storage_pb2.StorageSettings:
    settings = storage_pb2.StorageSettings()
    settings.CopyFrom(first)
    settings.secondary.CopyFrom(second)
    return settings


def _after(seconds: int, nanos: int = 0) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds, nanos=nanos)


OTHER_DISK = storage_pb2.DiskStore(folder="other")
BUCKET = _bucket().object_store


@pytest.mark.parametrize("after", [None, _after(1), _after(86400), _after(300, 5)])
def test_a_second_store_that_may_work(after: duration_pb2.Duration | None) -> None:
    secondary = storage_pb2.SecondaryStore(disk=OTHER_DISK, prefix="late", after=after)
    assert check_settings(_with_secondary(_bucket(), secondary)) == []
    assert check_settings(_with_secondary(_disk("first"), secondary)) == []
    wanted = 300 if after is None else after.seconds
    assert secondary_after_ns(secondary) // 10**9 == wanted


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        (_with_secondary(_disk("a"), storage_pb2.SecondaryStore()), "storage.secondary", "set `disk`"),
        (
            _with_secondary(_disk("other"), storage_pb2.SecondaryStore(disk=OTHER_DISK, prefix="x")),
            "storage.secondary.disk",
            "the first store again",
        ),
        (
            _with_secondary(_bucket(), storage_pb2.SecondaryStore(object_store=BUCKET, prefix="x")),
            "storage.secondary.object_store",
            "the first store again",
        ),
        (
            _with_secondary(
                _disk("a"), storage_pb2.SecondaryStore(disk=OTHER_DISK, after=_after(0, 999_999_999))
            ),
            "storage.secondary.after",
            "0.999999999s is out of range",
        ),
        (
            _with_secondary(_disk("a"), storage_pb2.SecondaryStore(disk=OTHER_DISK, after=_after(86400, 1))),
            "storage.secondary.after",
            "set 1s to 86400s",
        ),
        (
            _with_secondary(_disk("a"), storage_pb2.SecondaryStore(disk=OTHER_DISK, prefix="/x")),
            "storage.secondary.prefix",
            "slash",
        ),
        (
            _with_secondary(
                _disk("a"), storage_pb2.SecondaryStore(object_store=_bucket(KODO, "tapes", "z0").object_store)
            ),
            "storage.secondary.object_store.region",
            "cn-east-1",
        ),
    ],
)
def test_a_second_store_that_cannot_work(
    settings: storage_pb2.StorageSettings, field: str, says: str
) -> None:
    (violation,) = check_settings(settings)
    assert (violation.field, says in violation.description) == (field, True), violation


def test_the_second_disk_has_the_applications_folder_too() -> None:
    settings = _bucket()
    settings.secondary.disk.SetInParent()
    assert complete_settings(settings, "app").secondary.disk.folder == "app"
    twice = storage_pb2.StorageSettings()
    twice.secondary.disk.SetInParent()
    (violation,) = check_settings(complete_settings(twice, "app"))
    assert violation.field == "storage.secondary.disk"


@pytest.mark.parametrize("seconds", [0, 86400, 1500 * 86400])
def test_days_that_files_may_be_kept(seconds: int) -> None:
    assert check_settings(storage_pb2.StorageSettings(disk=OTHER_DISK, retention=_after(seconds))) == []


@pytest.mark.parametrize("retention", [_after(1), _after(-86400), _after(1501 * 86400), _after(86400, 1)])
def test_days_that_files_may_not_be_kept(retention: duration_pb2.Duration) -> None:
    (violation,) = check_settings(storage_pb2.StorageSettings(disk=OTHER_DISK, retention=retention))
    assert violation.field == "storage.retention"
    assert "1500" in violation.description


def _with_source(source: str) -> storage_pb2.StorageSettings:
    settings = _bucket()
    settings.object_store.credentials.Clear()
    settings.object_store.credentials.source = source
    return settings


def test_sources_are_those_that_the_application_may_use() -> None:
    assert check_settings(_with_source("pod"), offer=Offer(sources=["vault", "pod"])) == []
    (violation,) = check_settings(_with_source("prod"), offer=Offer(sources=["vault", "pod"]))
    assert violation.field == "storage.object_store.credentials.source"
    assert violation.description == "'prod' is no source that this application may use; it may use pod, vault"
    (violation,) = check_settings(_with_source("pod"))
    assert "gave it none" in violation.description
    both = _bucket()
    both.object_store.credentials.source = "pod"
    (violation,) = check_settings(both, offer=Offer(sources=["pod"]))
    assert (violation.field, violation.description) == (
        "storage.object_store.credentials",
        "has keys and a `source`; set one of them",
    )


@pytest.mark.parametrize(
    ("token", "expire_ns", "says"),
    [
        ("token", HOUR_NS + 1, None),
        ("", HOUR_NS + 1, "belongs to a session_token"),
        ("token", HOUR_NS, "has passed"),
        ("token", -HOUR_NS, "is no time"),
        ("token", 253_402_300_800 * 10**9, "is no time"),
    ],
)
def test_credentials_that_expire(token: str, expire_ns: int, says: str | None) -> None:
    settings = _bucket()
    credentials = settings.object_store.credentials
    credentials.session_token.value = token
    credentials.expire_time.CopyFrom(
        timestamp_pb2.Timestamp(seconds=expire_ns // 10**9, nanos=expire_ns % 10**9)
    )
    found = check_settings(settings, offer=Offer(now_ns=HOUR_NS))
    assert [violation.field for violation in found] == (
        ["storage.object_store.credentials.expire_time"] if says else []
    )
    assert all(says in violation.description for violation in found if says)


class _Tapes:
    """A kind that wants a shelf and a code."""

    def problems(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> Mapping[str, str]:
        found = {} if options.get("shelf") else {"shelf": "is required"}
        return found | ({"code": "has too few digits"} if len(secrets.get("code", "0000")) < 4 else {})

    def store(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> Store:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is open."""


def _custom(kind: str = "tapes", **options: str) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(custom=storage_pb2.CustomStore(kind=kind, options=options))


def test_kinds_are_those_that_are_installed() -> None:
    offer = Offer(kinds=StoreKinds({"tapes": _Tapes()}))
    assert check_settings(_custom(shelf="1"), offer=offer) == []
    (violation,) = check_settings(_custom("discs"), offer=offer)
    assert (violation.field, "write one of tapes" in violation.description) == ("storage.custom.kind", True)
    (violation,) = check_settings(_custom())
    assert "none is installed" in violation.description
    settings = _custom()
    settings.custom.secrets["code"].value = "123"
    found = check_settings(settings, offer=offer)
    assert [violation.field for violation in found] == [
        "storage.custom.options[shelf]",
        "storage.custom.secrets[code].value",
    ]
    assert not any("123" in violation.description for violation in found)
    big = _custom(**{f"name-{n}": "" for n in range(65)})
    (violation,) = check_settings(big, offer=offer)
    assert "65 entries" in violation.description
    (violation,) = check_settings(_custom(shelf="x" * 4097), offer=offer)
    assert "4096 bytes" in violation.description


def test_the_table_of_vendors_is_sound() -> None:
    assert set(VENDORS) == set(storage_pb2.StorageVendor.values()) - {0}
    for number, vendor in VENDORS.items():
        assert all(dataclasses.asdict(vendor)[name] for name in ("title", "key_page", "bucket_page")), (
            vendor.name
        )
        region = vendor.region_example
        bucket = "tapes-1250000000"
        assert check_settings(_bucket(number, bucket, region)) == []
        for endpoint in (vendor.endpoint, vendor.internal_endpoint):
            assert check_settings(_bucket(number, bucket, region, endpoint.format(region=region))) == []
            if endpoint:
                (violation,) = check_settings(
                    _bucket(number, bucket, "xx-nowhere-9", endpoint.format(region=region))
                )
                assert region in violation.description
        # What parts are cut by.
        assert vendor.min_part_bytes <= 8 << 20
        assert vendor.max_parts >= 9_000
        assert vendor.max_object_bytes >= 5 << 40
