"""What a store's error codes mean, and what to do about them, in the vendor's own words.

Codes are looked up in `_CODES`, then by HTTP status in `_STATUSES`. Sources: AWS S3 error responses, Tencent COS
436/7730, Volcengine TOS 6349/74874, and what S3-compatible servers answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from roomtape_service.storage.store import (
    AddressRefused,
    BucketMissing,
    CredentialsRefused,
    ObjectArchived,
    ObjectMissing,
    PartsMissing,
    PermissionRefused,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from roomtape_service.storage.vendors import Vendor

__all__ = ["Place", "trouble"]

_WAIT = "{title} {what}. It is tried again by itself."
_FAILING = _WAIT + " If it never works, look whether `endpoint` ({host}) is its S3 interface."

_NO_KEY = (
    "{title} does not know the {key_name} that is set as access_key_id. Copy it again from {key_page}; it may also "
    "have been deleted or disabled."
)
_WRONG_SECRET = (
    "The {secret_name} that is set as secret_access_key does not belong to the {key_name}, or has a character too "
    "much. Copy it again from {key_page}."
)
_EXPIRED = (
    "The session_token has expired or is not the key's. Set new temporary credentials, or lasting ones."
)
_FORBIDDEN = (
    "{title} does not let this key do that in bucket {bucket}. Allow it {permission} on the bucket and everything in "
    "it, and look for a bucket policy that denies it. If the bucket belongs to another account, correct `bucket`."
)
_NO_BUCKET = (
    "{title} has no bucket {bucket} at {host}. Buckets are never created by the server: create it in {bucket_page}, or "
    "correct `bucket` ({bucket_rule}) or `region` ({region})."
)
_WRONG_REGION = (
    "Bucket {bucket} is not in region {region}, or {host} is not its endpoint. Look into {bucket_page} for "
    "the bucket's region; set it, and leave `endpoint` empty unless you need another."
)
_NO_PATH_STYLE = "{title} does not take the bucket in the path. Leave `path_style` unset."
_NOT_PUT = (
    "{title} says that what is being put does not exist, as stores do that find the bucket in the wrong place of the "
    "URL. Leave `path_style` unset, and look whether `endpoint` ({host}) is the S3 interface of region {region}."
)
_NOT_S3 = (
    "{host} does not answer as an S3 interface does ({detail}). Correct `endpoint`; the address of a console or of a "
    "website is none."
)
_CLASS = "{title} refuses the storage class ({detail}). Leave `storage_class` out, or write another."
_TAGS = "{title} refuses the tags ({detail}). Leave `tags` out, or write others."
_ARCHIVED = (
    "Objects of this storage class can't be read before they are restored, so files can't be played or joined. Choose "
    "another `storage_class` unless they are only kept."
)
_CLOCK = "The clock of this server differs too much from that of {title}. Let it follow a time server (NTP)."
_FULL = "There is no space or quota left for bucket {bucket}. Make room or raise the quota."
_ACCOUNT = "{title} has suspended the account or the bucket, often for an unpaid bill. Look into its console."
_REQUEST = (
    "{title} does not accept the request ({detail}). Check that `endpoint` ({host}) is its S3 interface."
)
_NO_TLS = (
    "The certificate of {host} can't be trusted ({detail}). Correct `endpoint`, or let the server trust the authority "
    "that signed it."
)

# What OSS says to AccessDenied where the bucket is in another region.
_ELSEWHERE = "must be addressed using the specified endpoint"

# Code to class and advice.
_CODES: Mapping[str, tuple[type[StoreError], str]] = {
    "InvalidAccessKeyId": (CredentialsRefused, _NO_KEY),
    "InvalidSecretId": (CredentialsRefused, _NO_KEY),
    "SignatureDoesNotMatch": (CredentialsRefused, _WRONG_SECRET),
    "AuthFailure": (CredentialsRefused, _WRONG_SECRET),
    "InvalidSecurity": (CredentialsRefused, _WRONG_SECRET),
    "ExpiredToken": (CredentialsRefused, _EXPIRED),
    "InvalidToken": (CredentialsRefused, _EXPIRED),
    "InvalidSecurityToken": (CredentialsRefused, _EXPIRED),
    "TokenRefreshRequired": (CredentialsRefused, _EXPIRED),
    "RequestTimeTooSkewed": (StoreRefused, _CLOCK),
    "RequestIsExpired": (StoreRefused, _CLOCK),
    "AccessDenied": (PermissionRefused, _FORBIDDEN),
    "AccessForbidden": (PermissionRefused, _FORBIDDEN),
    "AllAccessDisabled": (StoreFull, _ACCOUNT),
    "AccountProblem": (StoreFull, _ACCOUNT),
    "UserDisable": (StoreFull, _ACCOUNT),
    "UnavailableForLegalReasons": (StoreFull, _ACCOUNT),
    "NoSuchBucket": (BucketMissing, _NO_BUCKET),
    "InvalidBucketName": (BucketMissing, _NO_BUCKET),
    "NoSuchKey": (ObjectMissing, "There is no such object in bucket {bucket}."),
    "NoSuchUpload": (PartsMissing, "{title} knows the multipart upload no more. It is begun anew."),
    "PermanentRedirect": (AddressRefused, _WRONG_REGION),
    "TemporaryRedirect": (AddressRefused, _WRONG_REGION),
    "IncorrectEndpoint": (AddressRefused, _WRONG_REGION),
    "AuthorizationHeaderMalformed": (AddressRefused, _WRONG_REGION),
    "AuthorizationQueryParametersError": (AddressRefused, _WRONG_REGION),
    "IllegalLocationConstraintException": (AddressRefused, _WRONG_REGION),
    "PathStyleDomainForbidden": (AddressRefused, _NO_PATH_STYLE),
    "InvalidPathAccess": (AddressRefused, _NO_PATH_STYLE),
    "SecondLevelDomainForbidden": (AddressRefused, _NO_PATH_STYLE),
    "InvalidBucketRegion": (AddressRefused, _WRONG_REGION),
    "NotS3": (AddressRefused, _NOT_S3),
    "InvalidStorageClass": (StoreRefused, _CLASS),
    "InvalidTag": (StoreRefused, _TAGS),
    "InvalidObjectState": (ObjectArchived, _ARCHIVED),
    "InArrearOrInsufficientBalance": (StoreFull, _ACCOUNT),
    "InsufficientStorageSpace": (StoreFull, _FULL),
    "QuotaExceeded": (StoreFull, _FULL),
    "BucketQuotaExceeded": (StoreFull, _FULL),
    "ServiceQuotaExceededException": (StoreFull, _FULL),
    "XMinioStorageFull": (StoreFull, _FULL),
    "XAmzContentSHA256Mismatch": (StoreUnavailable, _WAIT),
    "BadDigest": (StoreUnavailable, _WAIT),
    "IncompleteBody": (StoreUnavailable, _WAIT),
    "RequestTimeout": (StoreUnavailable, _WAIT),
    "InvalidPart": (PartsMissing, "{title} has other parts than were sent ({detail}). They are sent again."),
    "Timeout": (StoreUnavailable, "{title} at {host} did not answer in time. It is tried again by itself."),
    "ConnectionFailed": (
        StoreUnavailable,
        "{host} can't be reached ({detail}). It is tried again by itself; if it never works, correct `endpoint` or "
        "`region` ({region}).",
    ),
    "CertificateInvalid": (AddressRefused, _NO_TLS),
}

_STATUSES: Mapping[int, tuple[type[StoreError], str]] = {
    301: (AddressRefused, _WRONG_REGION),
    302: (AddressRefused, _WRONG_REGION),
    307: (AddressRefused, _WRONG_REGION),
    402: (StoreFull, _ACCOUNT),
    403: (PermissionRefused, _FORBIDDEN),
    404: (ObjectMissing, "There is no such object in bucket {bucket}, or no such bucket."),
    408: (StoreUnavailable, _WAIT),
    409: (StoreUnavailable, _WAIT),
    429: (StoreUnavailable, _WAIT),
    451: (StoreFull, _ACCOUNT),
    501: (StoreRefused, _REQUEST),
    507: (StoreFull, _FULL),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Which bucket an error is about."""

    vendor: Vendor
    bucket: str
    region: str
    host: str


def trouble(place: Place, step: str, code: str, detail: str, status: int = 0) -> StoreError:
    """The error for what a store answered to `step` (a key of `Vendor.permissions`).

    `code` is the vendor's or one of ours; where it is a bare HTTP status or empty, the status decides. `detail` is the
    vendor's message.
    """
    default = (StoreUnavailable, _FAILING) if status >= 500 or status == 0 else (StoreRefused, _REQUEST)
    kind, advice = _CODES.get(code) or _STATUSES.get(status) or default
    if code == "AccessDenied" and _ELSEWHERE in detail:
        kind, advice = AddressRefused, _WRONG_REGION
    if kind is ObjectMissing and step == "put":
        kind, advice = AddressRefused, _NOT_PUT
    vendor = place.vendor
    text = advice.format(
        title=vendor.title,
        key_name=vendor.key_names[0],
        secret_name=vendor.key_names[1],
        key_page=vendor.key_page,
        bucket_page=vendor.bucket_page,
        bucket_rule=vendor.bucket_rule,
        permission=vendor.permissions.get(step, "reading and writing"),
        bucket=place.bucket,
        region=place.region,
        host=place.host,
        detail=detail or code,
        what=f"answers {code or status}" + (f" ({detail})" if detail else ""),
    )
    return kind(code or str(status), text)
