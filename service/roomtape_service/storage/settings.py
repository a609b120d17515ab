"""Which storage settings can work, before anything is tried."""

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from google.protobuf import duration_pb2

from roomtape.v1 import error_pb2, storage_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.errors import FieldViolation, Refusal
from roomtape_service.rules.naming import MAX_PREFIX_BYTES, escape_id
from roomtape_service.rules.retention import retention_problem
from roomtape_service.storage.bucket_settings import Problem, bucket_problems
from roomtape_service.storage.offer import Offer
from roomtape_service.storage.vendors import VENDORS

__all__ = [
    "DEFAULT_SECONDARY_AFTER_NS",
    "check_settings",
    "complete_settings",
    "require_valid",
    "secondary_after_ns",
]

DEFAULT_SECONDARY_AFTER_NS = 300 * NANOSECONDS
"""Longer than a vendor's usual hiccup; short beside the room of a spool."""
_LEAST_AFTER_NS = NANOSECONDS
_MOST_AFTER_NS = 24 * 3600 * NANOSECONDS

_PREFIX = re.compile(r"[A-Za-z0-9/_.-]*")
# An application's own folder may have an escaped dot first.
_FOLDER = re.compile(r"(?:~2E|[A-Za-z0-9_-])[A-Za-z0-9._-]{0,127}")
_MAX_PART_BYTES = 255
_MAX_OPTIONS = 64
_MAX_SECRETS = 16
_MAX_NAME_CHARACTERS = 64
_MAX_VALUE_BYTES = 4096


def complete_settings(settings: storage_pb2.StorageSettings, app_id: str) -> storage_pb2.StorageSettings:
    """A copy with the defaults filled in that depend on the application: a disk folder of its own."""
    complete = storage_pb2.StorageSettings()
    complete.CopyFrom(settings)
    if complete.WhichOneof("store") in (None, "disk") and not complete.disk.folder:
        complete.disk.folder = escape_id(app_id)
    if complete.secondary.WhichOneof("store") == "disk" and not complete.secondary.disk.folder:
        complete.secondary.disk.folder = escape_id(app_id)
    return complete


def secondary_after_ns(secondary: storage_pb2.SecondaryStore) -> int:
    """How long the first store must have taken nothing before files go to the second, in nanoseconds."""
    return _nanoseconds(secondary.after) if secondary.HasField("after") else DEFAULT_SECONDARY_AFTER_NS


def require_valid(
    settings: storage_pb2.StorageSettings, path: str = "storage", offer: Offer | None = None
) -> None:
    """Raises Refusal INVALID_STORAGE_SETTINGS with every field at fault; `path` leads to `settings` in the request."""
    if violations := check_settings(settings, path, offer):
        problems = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise Refusal(
            error_pb2.ERROR_REASON_INVALID_STORAGE_SETTINGS,
            f"The storage settings can't work: {problems}",
            metadata={"field": violations[0].field, "problems": problems},
            fields=violations,
        )


def check_settings(
    settings: storage_pb2.StorageSettings, path: str = "storage", offer: Offer | None = None
) -> list[FieldViolation]:
    """What can't work, field by field; empty for settings that may. Secrets are never in the texts."""
    offer = offer or Offer()
    found = [*_store(settings, offer)]
    if problem := retention_problem(settings.retention):
        found.append(("retention", problem))
    if settings.HasField("secondary"):
        found += [
            (f"secondary{'.' if field else ''}{field}", text) for field, text in _secondary(settings, offer)
        ]
    return [FieldViolation(f"{path}{'.' if field else ''}{field}", text) for field, text in found]


def _store(
    settings: storage_pb2.StorageSettings | storage_pb2.SecondaryStore, offer: Offer
) -> Iterator[Problem]:
    yield from (("prefix", text) for text in _prefix(settings.prefix))
    match settings.WhichOneof("store"):
        case "disk":
            yield from (("disk.folder", text) for text in _folder(settings.disk.folder))
        case "object_store":
            for field, text in bucket_problems(settings.object_store, offer):
                yield f"object_store{'.' if field else ''}{field}", text
        case "custom":
            yield from ((f"custom.{field}", text) for field, text in _custom(settings.custom, offer))
        case _:
            yield "", "set `disk`, `object_store` or `custom`"


def _secondary(settings: storage_pb2.StorageSettings, offer: Offer) -> Iterator[Problem]:
    secondary = settings.secondary
    yield from _store(secondary, offer)
    if (kind := secondary.WhichOneof("store")) and _place(settings) == _place(secondary):
        yield kind, "is the first store again, which would be down as well; set another bucket or folder"
    if secondary.HasField("after") and not _LEAST_AFTER_NS <= _nanoseconds(secondary.after) <= _MOST_AFTER_NS:
        seconds = _nanoseconds(secondary.after) / NANOSECONDS
        yield "after", f"{seconds:.9g}s is out of range; set 1s to 86400s, or leave it out for 300s"


def _place(settings: storage_pb2.StorageSettings | storage_pb2.SecondaryStore) -> tuple[str, ...]:
    """Where objects lie, whatever their prefix and the keys to it."""
    match settings.WhichOneof("store"):
        case "object_store":
            store = settings.object_store
            vendor = VENDORS.get(store.vendor)
            try:
                host = urlsplit(store.endpoint).netloc.lower()
            except ValueError:
                host = store.endpoint
            place = store.region if vendor is None or vendor.owns(host) else host
            return "object_store", str(store.vendor), place, store.bucket
        case "custom":
            options = [f"{name}={value}" for name, value in sorted(settings.custom.options.items())]
            return "custom", settings.custom.kind, *options
        case _:
            return "disk", settings.disk.folder


def _custom(store: storage_pb2.CustomStore, offer: Offer) -> Iterator[Problem]:
    names = offer.kinds.names
    if store.kind not in names:
        known = f"write one of {', '.join(names)}" if names else "none is installed"
        yield "kind", f"this server has no stores of the kind {store.kind[:_MAX_NAME_CHARACTERS]!r}; {known}"
        return
    secrets = {name: secret.value for name, secret in store.secrets.items()}
    is_fit = True
    sizes: tuple[tuple[str, int, Mapping[str, str]], ...] = (
        ("options", _MAX_OPTIONS, store.options),
        ("secrets", _MAX_SECRETS, secrets),
    )
    for field, most, values in sizes:
        if len(values) > most:
            is_fit = False
            yield field, f"has {len(values)} entries; up to {most} are taken"
        if any(not 1 <= len(name) <= _MAX_NAME_CHARACTERS for name in values):
            is_fit = False
            yield field, f"has a name that is empty or over {_MAX_NAME_CHARACTERS} characters"
        if any(len(value.encode()) > _MAX_VALUE_BYTES for value in values.values()):
            is_fit = False
            yield field, f"has a value of more than {_MAX_VALUE_BYTES} bytes"
    if not is_fit:
        return
    for name, text in offer.kinds.problems(store.kind, store.options, secrets).items():
        part = "kind" if not name else f"secrets[{name}].value" if name in secrets else f"options[{name}]"
        yield part, text


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


def _nanoseconds(duration: duration_pb2.Duration) -> int:
    # Not by the message's own conversions: they raise for what is no duration.
    return duration.seconds * NANOSECONDS + duration.nanos
