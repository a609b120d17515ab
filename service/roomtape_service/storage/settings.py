"""Which storage settings can work, before anything is tried."""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from roomtape.v1 import error_pb2, storage_pb2
from roomtape_service.errors import FieldViolation, Refusal
from roomtape_service.rules.naming import MAX_PREFIX_BYTES, escape_id
from roomtape_service.rules.retention import retention_problem
from roomtape_service.storage.vendors import VENDORS, Vendor

__all__ = ["check_settings", "complete_settings", "require_valid"]

_PREFIX = re.compile(r"[A-Za-z0-9/_.-]*")
# An application's own folder may have an escaped dot first.
_FOLDER = re.compile(r"(?:~2E|[A-Za-z0-9_-])[A-Za-z0-9._-]{0,127}")
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_KEY_TEXT = re.compile(r"[\x21-\x7e]{1,512}")
_TOKEN_TEXT = re.compile(r"[\x21-\x7e]{1,8192}")
_URL_TEXT = re.compile(r"[\x21-\x7e]{1,512}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_MAX_PART_BYTES = 255


def complete_settings(settings: storage_pb2.StorageSettings, app_id: str) -> storage_pb2.StorageSettings:
    """A copy with the defaults filled in that depend on the application: a disk folder of its own."""
    complete = storage_pb2.StorageSettings()
    complete.CopyFrom(settings)
    if complete.WhichOneof("store") != "object_store" and not complete.disk.folder:
        complete.disk.folder = escape_id(app_id)
    return complete


def require_valid(settings: storage_pb2.StorageSettings, path: str = "storage") -> None:
    """Raises Refusal INVALID_STORAGE_SETTINGS with every field at fault; `path` leads to `settings` in the request."""
    if violations := check_settings(settings, path):
        problems = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise Refusal(
            error_pb2.ERROR_REASON_INVALID_STORAGE_SETTINGS,
            f"The storage settings can't work: {problems}",
            metadata={"field": violations[0].field, "problems": problems},
            fields=violations,
        )


def check_settings(settings: storage_pb2.StorageSettings, path: str = "storage") -> list[FieldViolation]:
    """What can't work, field by field; empty for settings that may. Secrets are never in the texts."""
    found = [FieldViolation(f"{path}.prefix", text) for text in _prefix(settings.prefix)]
    match settings.WhichOneof("store"):
        case "disk":
            found += [FieldViolation(f"{path}.disk.folder", text) for text in _folder(settings.disk.folder)]
        case "object_store":
            found += [
                FieldViolation(f"{path}.object_store{'.' if field else ''}{field}", text)
                for field, text in _object_store(settings.object_store)
            ]
        case _:
            found.append(FieldViolation(path, "set `disk` or `object_store`"))
    if problem := retention_problem(settings.retention):
        found.append(FieldViolation(f"{path}.retention", problem))
    return found


def _prefix(prefix: str) -> Sequence[str]:
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        return [f"is longer than {MAX_PREFIX_BYTES} bytes"]
    if not _PREFIX.fullmatch(prefix):
        return [f"{prefix!r} has other characters than letters, digits and `/ - _ .`"]
    if prefix.startswith("/"):
        return ["starts with a slash; leave it out"]
    parts = prefix.removesuffix("/").split("/") if prefix else []
    if any(not part or part.startswith(".") or len(part) > _MAX_PART_BYTES for part in parts):
        return [
            f"{prefix!r} has an empty part, one that starts with a dot, or one over {_MAX_PART_BYTES} bytes"
        ]
    return []


def _folder(folder: str) -> Sequence[str]:
    if folder and not _FOLDER.fullmatch(folder):
        return [f"{folder!r} is no folder; write up to 128 letters, digits, `-`, `_` and `.`, no dot first"]
    return []


def _object_store(store: storage_pb2.ObjectStore) -> list[tuple[str, str]]:
    vendor = VENDORS.get(store.vendor)
    if vendor is None:
        names = ", ".join(storage_pb2.StorageVendor.Name(known) for known in VENDORS)
        return [("vendor", f"is required; one of {names}")]
    found: list[tuple[str, str]] = []
    if not vendor.bucket_pattern.fullmatch(store.bucket):
        found.append(
            ("bucket", f"{store.bucket!r} is no bucket of {vendor.title}; write {vendor.bucket_rule}")
        )
    if not _REGION.fullmatch(store.region):
        found.append(
            ("region", f"{store.region!r} is no region; write it as {vendor.title} does, in lower case")
        )
    found += [("endpoint", text) for text in _endpoint(store, vendor)]
    if store.path_style and not vendor.path_style_allowed:
        found.append(("path_style", f"{vendor.title} does not take the bucket in the path; leave it unset"))
    path_style = store.path_style if store.HasField("path_style") else vendor.path_style
    if not path_style and "." in store.bucket:
        found.append(("bucket", f"{store.bucket!r} has a dot, which no certificate of {vendor.title} covers"))
    if not path_style and _is_address(_host(store.endpoint)):
        found.append(
            ("path_style", "an endpoint that is an address takes the bucket in the path alone; set it")
        )
    if not _KEY_TEXT.fullmatch(store.credentials.access_key_id):
        found.append(("credentials.access_key_id", f"is required: the {vendor.key_names[0]}, without spaces"))
    if not _KEY_TEXT.fullmatch(store.credentials.secret_access_key.value):
        found.append(
            ("credentials.secret_access_key.value", f"is required: the {vendor.key_names[1]}, without spaces")
        )
    token = store.credentials.session_token.value
    if token and not _TOKEN_TEXT.fullmatch(token):
        found.append(("credentials.session_token.value", "has spaces or characters that no token has"))
    return found


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
    for pattern, advice in vendor.wrong_endpoints:
        if pattern.fullmatch(host):
            return [advice]
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
