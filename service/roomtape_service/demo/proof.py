"""`roomtape verify` of the demo's task: its files against its manifest."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from roomtape.v1 import file_pb2
from roomtape_service.demo.finding import Finding
from roomtape_service.manifest.folder import FolderObjects, root_of
from roomtape_service.manifest.reading import ManifestError, read_manifest
from roomtape_service.manifest.verification import verify

__all__ = ["manifest_path", "prove"]

_WHAT = "the manifest"


def manifest_path(manifest: file_pb2.Manifest) -> Path:
    """Where a manifest of the demo's store is."""
    return Path(unquote(urlsplit(manifest.url).path))


async def prove(manifest: file_pb2.Manifest) -> Sequence[Finding]:
    """Whether the files in the folder are what the manifest there says."""
    path = manifest_path(manifest)
    try:
        data = await asyncio.to_thread(path.read_bytes)
        root = root_of(path, read_manifest(data))
    except (OSError, ManifestError) as error:
        return [Finding(f"{_WHAT}: it is there", False, str(error))]
    if root is None:
        return [Finding(f"{_WHAT}: it is where its key says", False, str(path))]
    report = await verify(data, FolderObjects(root), sha256=manifest.sha256)
    checked = sum(1 for each in report.files if each.was_checked)
    return [
        Finding(f"{_WHAT}: it is complete", bool(report.manifest and report.manifest.complete), str(path)),
        Finding(
            f"{_WHAT}: its files are there, with its sizes, SHA-256 and samples, and no other",
            report.ok,
            "; ".join(f"{each.about}: {each.problem}" for each in report.findings) or f"{checked} files",
        ),
    ]
