"""What error codes become, and what is said to do about them."""

import pytest

from roomtape.v1 import storage_pb2
from roomtape_service.storage import store
from roomtape_service.storage.troubles import Place, trouble
from roomtape_service.storage.vendors import STEPS, VENDORS

COS = Place(
    VENDORS[storage_pb2.STORAGE_VENDOR_COS],
    "tapes-1250000000",
    "ap-guangzhou",
    "cos.ap-guangzhou.myqcloud.com",
)
TOS = Place(VENDORS[storage_pb2.STORAGE_VENDOR_TOS], "tapes", "cn-beijing", "tos-s3-cn-beijing.volces.com")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidAccessKeyId", 403, store.CredentialsRefused),
        ("SignatureDoesNotMatch", 403, store.CredentialsRefused),
        ("ExpiredToken", 400, store.CredentialsRefused),
        ("AccessDenied", 403, store.PermissionRefused),
        ("403", 403, store.PermissionRefused),
        ("NoSuchBucket", 404, store.BucketMissing),
        ("NoSuchKey", 404, store.ObjectMissing),
        ("404", 404, store.ObjectMissing),
        ("PathStyleDomainForbidden", 403, store.AddressRefused),
        ("InvalidPathAccess", 403, store.AddressRefused),
        ("AuthorizationHeaderMalformed", 400, store.AddressRefused),
        ("PermanentRedirect", 301, store.AddressRefused),
        ("QuotaExceeded", 403, store.StoreFull),
        ("UnavailableForLegalReasons", 451, store.StoreFull),
        ("SomethingNew", 400, store.StoreRefused),
        ("NotImplemented", 501, store.StoreRefused),
        ("SlowDown", 503, store.StoreUnavailable),
        ("InternalError", 500, store.StoreUnavailable),
        ("TooManyRequests", 429, store.StoreUnavailable),
        ("RequestTimeout", 400, store.StoreUnavailable),
        ("BadDigest", 400, store.StoreUnavailable),
        ("ConnectionFailed", 0, store.StoreUnavailable),
        ("Timeout", 0, store.StoreUnavailable),
        ("", 502, store.StoreUnavailable),
        ("CertificateInvalid", 0, store.AddressRefused),
    ],
)
def test_codes_have_a_kind(code: str, status: int, kind: type[store.StoreError]) -> None:
    error = trouble(COS, "head", code, "as the store said", status)
    assert type(error) is kind
    assert error.code == (code or str(status))
    assert "{" not in error.message
    assert len(error.message) > 20


def test_advice_speaks_the_vendors_words() -> None:
    assert "SecretKey" in trouble(COS, "put", "SignatureDoesNotMatch", "").message
    assert "CAM console" in trouble(COS, "put", "InvalidAccessKeyId", "").message
    assert "name/cos:HeadObject" in trouble(COS, "head", "403", "", 403).message
    assert "tos:GetObject" in trouble(TOS, "read", "AccessDenied", "").message
    assert "APPID" in trouble(COS, "put", "NoSuchBucket", "").message
    assert "cos.ap-guangzhou.myqcloud.com" in trouble(COS, "put", "NoSuchBucket", "").message
    assert "path_style" in trouble(TOS, "put", "InvalidPathAccess", "").message
    assert "NTP" in trouble(TOS, "put", "RequestTimeTooSkewed", "").message


def test_what_is_said_of_a_put_is_not_that_it_is_missing() -> None:
    # OBS answers so where the bucket stands in the path.
    error = trouble(TOS, "put", "NoSuchKey", "", 404)
    assert type(error) is store.AddressRefused
    assert "wrong place of the URL" in error.message
    # OSS says so where the bucket is in another region.
    detail = "The bucket you are attempting to access must be addressed using the specified endpoint."
    error = trouble(TOS, "put", "AccessDenied", detail, 403)
    assert type(error) is store.AddressRefused
    assert "cn-beijing" in error.message


def test_every_vendor_says_what_each_step_needs() -> None:
    for vendor in VENDORS.values():
        assert set(vendor.permissions) == set(STEPS)
