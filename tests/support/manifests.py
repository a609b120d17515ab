"""A task's manifest as tests get at it, verified against the files."""

import json
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jsonschema import Draft202012Validator

from roomtape.client import Client
from roomtape.v1 import file_pb2
from roomtape_service.manifest.folder import FolderObjects, root_of
from roomtape_service.manifest.model import Manifest
from roomtape_service.manifest.reading import read_manifest
from roomtape_service.manifest.verification import Report, verify

__all__ = ["assert_valid", "assert_verified", "is_on_disk", "manifest_path", "read_stored"]

_SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def assert_valid(data: bytes) -> None:
    """The document is one of the published schema."""
    _validator().validate(json.loads(data))


@cache
def _validator() -> Draft202012Validator:
    schema = json.loads(_SCHEMA.read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


async def manifest_path(client: Client, app_id: str, task_id: str) -> Path:
    """Where a task's manifest is on a disk store."""
    reply = await client.files.GetManifest(file_pb2.GetManifestRequest(app_id=app_id, task_id=task_id))
    url = urlsplit(reply.manifest.url)
    assert url.scheme == "file", reply.manifest.url
    return Path(unquote(url.path))


async def read_stored(client: Client, app_id: str, task_id: str) -> Manifest:
    """A task's manifest on a disk store."""
    return read_manifest((await manifest_path(client, app_id, task_id)).read_bytes())


async def is_on_disk(client: Client, app_id: str, task_id: str) -> bool:
    """Whether a task's manifest is in a folder."""
    reply = await client.files.GetManifest(file_pb2.GetManifestRequest(app_id=app_id, task_id=task_id))
    return reply.manifest.url.startswith("file:")


async def assert_verified(client: Client, app_id: str, task_id: str) -> Report:
    """The report of a task on a disk store with which all is well."""
    path = await manifest_path(client, app_id, task_id)
    data = path.read_bytes()
    assert_valid(data)
    root = root_of(path, read_manifest(data))
    assert root is not None
    report = await verify(data, FolderObjects(root))
    assert report.ok, [f"{each.about}: {each.problem}" for each in report.findings]
    return report
