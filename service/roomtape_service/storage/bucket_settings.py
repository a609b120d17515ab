"""Which settings of a bucket can work."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from roomtape.v1 import storage_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.storage.offer import Offer
from roomtape_service.storage.vendors import VENDORS, Vendor

__all__ = ["Problem", "bucket_problems"]

Problem = tuple[str, str]
"""Field below the message, "" for the message itself, and what is wrong with it."""

_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_KEY_TEXT = re.compile(r"[\x21-\x7e]{1,512}")
_TOKEN_TEXT = re.compile(r"[\x21-\x7e]{1,8192}")
_URL_TEXT = re.compile(r"[\x21-\x7e]{1,512}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z0-9_-]{1,64}")

# 9999-12-31T23:59:59Z, the end of what a Timestamp may say.
_LAST_SECOND = 253_402_300_799
_MAX_TAGS = 10
_TAG_KEY = re.compile(r"[A-Za-z0-9+\-=._:/@]{1,128}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9+\-=._:/@]{0,256}")
_RESERVED_TAG = "aws:"
_SHOWN_CHARACTERS = 64


def bucket_problems(store: storage_pb2.ObjectStore, offer: Offer) -> Iterator[Problem]:
    """What can't work, field by field. Secrets are never in the texts."""
    vendor = VENDORS.get(store.vendor)
    if vendor is None:
        names = ", ".join(storage_pb2.StorageVendor.Name(known) for known in VENDORS)
        yield "vendor", f"is required; one of {names}"
        return
    if not vendor.bucket_pattern.fullmatch(store.bucket):
        yield "bucket", f"{store.bucket!r} is no bucket of {vendor.title}; write {vendor.bucket_rule}"
    yield from (("region", text) for text in _region(store.region, vendor))
    yield from (("endpoint", text) for text in _endpoint(store, vendor))
    if store.path_style and not vendor.path_style_allowed:
        yield "path_style", f"{vendor.title} does not take the bucket in the path; leave it unset"
    path_style = store.path_style if store.HasField("path_style") else vendor.path_style
    if not path_style and "." in store.bucket:
        yield "bucket", f"{store.bucket!r} has a dot, which no certificate of {vendor.title} covers"
    if not path_style and _is_address(_host(store.endpoint)):
        yield "path_style", "an endpoint that is an address takes the bucket in the path alone; set it"
    yield from _credentials(store.credentials, vendor, offer)
    yield from (("storage_class", text) for text in _storage_class(store, vendor))
    yield from (("tags", text) for text in _tags(store, vendor))


def _region(region: str, vendor: Vendor) -> Sequence[str]:
    for pattern, advice in vendor.wrong_regions:
        if pattern.fullmatch(region):
            return [f"{region!r}: {advice}"]
    if not _REGION.fullmatch(region):
        return [
            f"{region!r} is no region; write it as {vendor.title} does, in lower case, such as "
            f"`{vendor.region_example}`"
        ]
    return []


def _credentials(
    credentials: storage_pb2.StorageCredentials, vendor: Vendor, offer: Offer
) -> Iterator[Problem]:
    if credentials.source:
        yield from _source(credentials, offer)
        return
    if not _KEY_TEXT.fullmatch(credentials.access_key_id):
        yield (
            "credentials.access_key_id",
            f"is required: the {vendor.key_names[0]}, without spaces; or name a `source`",
        )
    if not _KEY_TEXT.fullmatch(credentials.secret_access_key.value):
        yield "credentials.secret_access_key.value", f"is required: the {vendor.key_names[1]}, without spaces"
    token = credentials.session_token.value
    if token and not _TOKEN_TEXT.fullmatch(token):
        yield "credentials.session_token.value", "has spaces or characters that no token has"
    if credentials.HasField("expire_time"):
        expire_time = credentials.expire_time
        if not 0 <= expire_time.nanos < NANOSECONDS or not 0 <= expire_time.seconds <= _LAST_SECOND:
            yield "credentials.expire_time", "is no time of the years 1970 to 9999"
        elif not token:
            yield "credentials.expire_time", "belongs to a session_token; set that too, or leave both out"
        elif expire_time.seconds * NANOSECONDS + expire_time.nanos <= offer.now_ns:
            yield "credentials.expire_time", "has passed; set credentials that are still valid"


def _source(credentials: storage_pb2.StorageCredentials, offer: Offer) -> Iterator[Problem]:
    if credentials.source not in offer.sources:
        usable = (
            f"it may use {', '.join(sorted(offer.sources))}"
            if offer.sources
            else "the server's operator gave it none (`credential_sources`)"
        )
        source = credentials.source[:_SHOWN_CHARACTERS]
        yield "credentials.source", f"{source!r} is no source that this application may use; {usable}"
    if (
        credentials.access_key_id
        or credentials.secret_access_key.value
        or credentials.session_token.value
        or credentials.HasField("expire_time")
    ):
        yield "credentials", "has keys and a `source`; set one of them"


def _storage_class(store: storage_pb2.ObjectStore, vendor: Vendor) -> Sequence[str]:
    wanted = store.storage_class
    if not wanted:
        return []
    if not _CLASS.fullmatch(wanted):
        return [f"{wanted[:_SHOWN_CHARACTERS]!r} is no name of a storage class"]
    # What another server calls its classes, its operator knows.
    if not vendor.owns(_host(store.endpoint)) or wanted in vendor.storage_classes:
        return []
    if not vendor.storage_classes:
        return [
            f"{vendor.title} gives objects the class of their bucket; leave it out and choose when the bucket is made"
        ]
    return [
        f"{wanted!r} is no class of {vendor.title}; write one of {', '.join(sorted(vendor.storage_classes))}"
    ]


def _tags(store: storage_pb2.ObjectStore, vendor: Vendor) -> Sequence[str]:
    if not store.tags:
        return []
    if not vendor.has_tags:
        return [f"{vendor.title} takes no tags through its S3 interface; leave them out"]
    if len(store.tags) > _MAX_TAGS:
        return [f"{len(store.tags)} tags are more than the {_MAX_TAGS} that an object can have"]
    for key, value in sorted(store.tags.items()):
        shown = key[:_SHOWN_CHARACTERS]
        if not _TAG_KEY.fullmatch(key):
            return [f"{shown!r} is no key; write 1 to 128 letters, digits and `+ - = . _ : / @`"]
        if key.lower().startswith(_RESERVED_TAG):
            return [f"{shown!r}: keys that start with `{_RESERVED_TAG}` are the vendor's own"]
        if not _TAG_VALUE.fullmatch(value):
            return [f"the value of {shown!r} is none; write up to 256 letters, digits and `+ - = . _ : / @`"]
    return []


def _endpoint(store: storage_pb2.ObjectStore, vendor: Vendor) -> Sequence[str]:
    if not store.endpoint:
        return []
    # urlsplit leaves line breaks out in silence.
    if not _URL_TEXT.fullmatch(store.endpoint):
        return ["is no base URL; write scheme and host, such as `https://s3.example.com`"]
    try:
        parts = urlsplit(store.endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return [f"{store.endpoint!r} is no URL"]
    # The text is not repeated where it may hold a password.
    if parts.username is not None or parts.password is not None:
        return ["has a user name; keys belong into `credentials`"]
    if parts.scheme not in ("http", "https") or not (_HOST.fullmatch(host) or _is_address(host)) or port == 0:
        return [f"{store.endpoint!r} is no base URL; write scheme and host, such as `https://s3.example.com`"]
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return [f"{store.endpoint!r} has more than scheme, host and port; leave the rest out"]
    return _vendors_host(host, store.region, vendor)


def _vendors_host(host: str, region: str, vendor: Vendor) -> Sequence[str]:
    for pattern, advice in vendor.wrong_endpoints:
        if pattern.fullmatch(host):
            return [advice]
    for number, other in VENDORS.items():
        if other is not vendor and other.owns(host):
            name = storage_pb2.StorageVendor.Name(number)
            return [f"{host} is {other.title}; set `vendor` to {name}, or correct the endpoint"]
    found = vendor.region_in_host.fullmatch(host) if vendor.region_in_host else None
    if found and found["region"] != region:
        return [f"{host} is in the region {found['region']}, not in {region!r}; correct one of the two"]
    return []


def _host(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
