"""Arguments that say where an application's files go."""

import argparse
import sys
from pathlib import Path

from roomtape.v1 import storage_pb2
from roomtape_service.cli.calling import CommandError
from roomtape_service.cli.options import choice

__all__ = ["add_storage_arguments", "storage"]

_OBJECT_STORE = ("bucket", "region", "endpoint", "path_style", "access_key_id", "secret_access_key_file")


def add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    """A disk folder or a bucket."""
    group = parser.add_argument_group("storage")
    group.add_argument("--disk", nargs="?", const="", metavar="FOLDER", help="a folder of the server's disk")
    group.add_argument(
        "--vendor",
        type=choice(storage_pb2.StorageVendor.DESCRIPTOR),
        metavar="s3|cos|tos",
        help="a bucket of this vendor; s3 with --endpoint is any S3-compatible server",
    )
    group.add_argument("--bucket")
    group.add_argument("--region")
    group.add_argument("--endpoint", metavar="URL", help="default: the vendor's own for the region")
    group.add_argument(
        "--path-style",
        action="store_true",
        default=None,
        help="put the bucket in the path, not in the host name",
    )
    group.add_argument("--access-key-id", metavar="ID")
    group.add_argument(
        "--secret-access-key-file",
        type=Path,
        metavar="FILE",
        help="file with the secret; - is standard input",
    )
    group.add_argument("--session-token-file", type=Path, metavar="FILE", help="of temporary credentials")
    group.add_argument("--prefix", default="", help="put before every object key")


def storage(arguments: argparse.Namespace) -> storage_pb2.StorageSettings | None:
    """The settings that the arguments give; None when they give none.

    Raises CommandError for arguments that don't go together, OSError for secrets that can't be read.
    """
    given = [name for name in _OBJECT_STORE if getattr(arguments, name) is not None]
    if arguments.disk is not None and arguments.vendor is not None:
        raise CommandError("give --disk or --vendor, not both")
    if arguments.vendor is None and given:
        raise CommandError(f"--{given[0].replace('_', '-')} belongs to a bucket; give --vendor too")
    if arguments.disk is not None:
        return storage_pb2.StorageSettings(
            disk=storage_pb2.DiskStore(folder=arguments.disk), prefix=arguments.prefix
        )
    if arguments.vendor is None:
        if arguments.prefix:
            raise CommandError("--prefix belongs to a store; give --disk or --vendor too")
        return None
    credentials = storage_pb2.StorageCredentials(access_key_id=arguments.access_key_id or "")
    if arguments.secret_access_key_file is not None:
        credentials.secret_access_key.value = _read(arguments.secret_access_key_file)
    if arguments.session_token_file is not None:
        credentials.session_token.value = _read(arguments.session_token_file)
    store = storage_pb2.ObjectStore(
        vendor=arguments.vendor,
        bucket=arguments.bucket or "",
        region=arguments.region or "",
        endpoint=arguments.endpoint or "",
        credentials=credentials,
    )
    if arguments.path_style is not None:
        store.path_style = arguments.path_style
    return storage_pb2.StorageSettings(object_store=store, prefix=arguments.prefix)


def _read(path: Path) -> str:
    return (sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")).strip()
