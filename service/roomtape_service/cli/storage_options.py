"""Arguments that say where an application's files go."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import storage_pb2
from roomtape_service.cli.calling import CommandError
from roomtape_service.cli.options import choice, reader
from roomtape_service.cli.texts import read_span, read_time

__all__ = ["add_storage_arguments", "storage"]

_SECONDARY = "secondary-"

_BUCKET = (
    "bucket",
    "region",
    "endpoint",
    "path-style",
    "access-key-id",
    "secret-access-key-file",
    "session-token-file",
    "expires",
    "credential-source",
    "storage-class",
    "tag",
)
_CUSTOM = ("store-option", "store-secret-file")


def add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    """A disk folder, a bucket or a store that was added, and a second one of them."""
    group = parser.add_argument_group("storage")
    _add_store(group, "")
    group.add_argument(
        "--retention",
        type=reader(read_span),
        metavar="SPAN",
        help="how long files are kept: whole days up to 1500d; default 0, for ever",
    )
    group = parser.add_argument_group(
        "secondary storage", "where files go while the first stays down; as above, with the prefix"
    )
    _add_store(group, _SECONDARY)
    group.add_argument(
        f"--{_SECONDARY}after",
        type=reader(read_span),
        metavar="SPAN",
        help="how long the first store must be down: 1s to 24h; default 5m",
    )


def storage(arguments: argparse.Namespace) -> storage_pb2.StorageSettings | None:
    """The settings that the arguments give; None when they give none.

    Raises CommandError for arguments that don't go together, OSError for secrets that can't be read.
    """
    first, second = _Given(arguments, ""), _Given(arguments, _SECONDARY)
    settings = storage_pb2.StorageSettings()
    has_store = _fill(settings, first)
    secondary = storage_pb2.SecondaryStore()
    if _fill(secondary, second):
        if isinstance(after := second.value("after"), Duration):
            secondary.after.CopyFrom(after)
        settings.secondary.CopyFrom(secondary)
    elif second.value("after") is not None:
        raise CommandError("--secondary-after belongs to a second store; give --secondary-disk or such too")
    if isinstance(retention := first.value("retention"), Duration):
        settings.retention.CopyFrom(retention)
    if not has_store and settings != storage_pb2.StorageSettings():
        raise CommandError("a second store and --retention belong to a store; give --disk or --vendor too")
    return settings if has_store else None


class _Given:
    """The arguments of one of the stores."""

    def __init__(self, arguments: argparse.Namespace, prefix: str) -> None:
        self._arguments = arguments
        self._prefix = prefix

    def option(self, name: str) -> str:
        return f"--{self._prefix}{name}"

    def value(self, name: str) -> object:
        return getattr(self._arguments, f"{self._prefix}{name}".replace("-", "_"))

    def text(self, name: str) -> str:
        return str(self.value(name) or "")

    def secret(self, name: str) -> str:
        return _read(path) if isinstance(path := self.value(name), Path) else ""

    def pairs(self, name: str) -> Sequence[tuple[str, str]]:
        found = self.value(name)
        return found if isinstance(found, list) else ()


def _add_store(group: argparse._ArgumentGroup, prefix: str) -> None:
    def add(name: str, **options: Any) -> None:
        # Each is a `--help` of its own; of the second store's only the names are of interest.
        if prefix:
            options["help"] = argparse.SUPPRESS if name not in ("disk", "vendor") else options["help"]
        group.add_argument(f"--{prefix}{name}", **options)

    add("disk", nargs="?", const="", metavar="FOLDER", help="a folder of the server's disk")
    add(
        "vendor",
        type=choice(storage_pb2.StorageVendor.DESCRIPTOR),
        metavar="s3|cos|tos|oss|obs|kodo",
        help="a bucket of this vendor; s3 with --endpoint is any S3-compatible server",
    )
    add("bucket", help="its name; for cos with the APPID, for kodo its S3 name")
    add("region", help="as the vendor names it, such as ap-guangzhou")
    add("endpoint", metavar="URL", help="default: the vendor's own for the region")
    add(
        "path-style",
        action="store_true",
        default=None,
        help="put the bucket in the path, not in the host name",
    )
    add("access-key-id", metavar="ID", help="id of the key")
    add("secret-access-key-file", type=Path, metavar="FILE", help="file with the secret; - is standard input")
    add("session-token-file", type=Path, metavar="FILE", help="of temporary credentials")
    add(
        "expires",
        type=reader(read_time),
        metavar="TIME",
        help="when these expire, such as 2030-01-31T12:00:00Z",
    )
    add(
        "credential-source", metavar="NAME", help="a source of credentials that the server's operator defined"
    )
    add("storage-class", metavar="CLASS", help="the vendor's name of a storage class, such as STANDARD_IA")
    add(
        "tag",
        action="append",
        type=reader(_pair),
        metavar="KEY=VALUE",
        help="a tag of each object; up to 10 times",
    )
    add("store", metavar="KIND", help="a store of a kind that was added to the server")
    add(
        "store-option",
        action="append",
        type=reader(_pair),
        metavar="NAME=VALUE",
        help="what it wants to know",
    )
    add(
        "store-secret-file",
        action="append",
        type=reader(_pair),
        metavar="NAME=FILE",
        help="and only it may know",
    )
    add("prefix", default="", help="put before every object key")


def _fill(settings: storage_pb2.StorageSettings | storage_pb2.SecondaryStore, given: _Given) -> bool:
    """Whether there is a store in the arguments."""
    stores = [name for name in ("disk", "vendor", "store") if given.value(name) is not None]
    if len(stores) > 1:
        raise CommandError(f"give {given.option(stores[0])} or {given.option(stores[1])}, not both")
    for names, store, what in ((_BUCKET, "vendor", "a bucket"), (_CUSTOM, "store", "a kind of store")):
        if store not in stores and (others := [name for name in names if given.value(name) is not None]):
            raise CommandError(f"{given.option(others[0])} belongs to {what}; give {given.option(store)} too")
    if not stores:
        if given.text("prefix"):
            options = f"{given.option('disk')} or {given.option('vendor')}"
            raise CommandError(f"{given.option('prefix')} belongs to a store; give {options} too")
        return False
    settings.prefix = given.text("prefix")
    match stores[0]:
        case "disk":
            settings.disk.CopyFrom(storage_pb2.DiskStore(folder=given.text("disk")))
        case "vendor":
            settings.object_store.CopyFrom(_bucket(given))
        case _:
            settings.custom.kind = given.text("store")
            settings.custom.options.update(given.pairs("store-option"))
            for name, file in given.pairs("store-secret-file"):
                settings.custom.secrets[name].value = _read(Path(file))
    return True


def _bucket(given: _Given) -> storage_pb2.ObjectStore:
    credentials = storage_pb2.StorageCredentials(
        access_key_id=given.text("access-key-id"), source=given.text("credential-source")
    )
    if secret := given.secret("secret-access-key-file"):
        credentials.secret_access_key.value = secret
    if token := given.secret("session-token-file"):
        credentials.session_token.value = token
    if isinstance(expires := given.value("expires"), Timestamp):
        credentials.expire_time.CopyFrom(expires)
    tags: Mapping[str, str] = dict(given.pairs("tag"))
    store = storage_pb2.ObjectStore(
        bucket=given.text("bucket"),
        region=given.text("region"),
        endpoint=given.text("endpoint"),
        storage_class=given.text("storage-class"),
        tags=tags,
        credentials=credentials,
    )
    store.vendor = next(each for each in storage_pb2.StorageVendor.values() if each == given.value("vendor"))
    if given.value("path-style") is not None:
        store.path_style = True
    return store


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is none; write NAME=VALUE")
    return name, value


def _read(path: Path) -> str:
    return (sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")).strip()
