"""The objects of a task in a folder: a disk store, a mounted bucket, or a download that kept the keys as paths."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from roomtape_service.manifest.model import File, Manifest
from roomtape_service.manifest.reading import ManifestError, read_manifest
from roomtape_service.manifest.verification import NotThere
from roomtape_service.rules.naming import name_stamp

__all__ = ["FolderObjects", "root_of"]

_MANIFEST = "manifest.json"
_RECORDED = re.compile(r"(\d{1,20}_)?\d{4}(-\d\d){5}_")
"""How the names of recorded files begin, of whatever task."""


def root_of(path: Path, manifest: Manifest) -> Path | None:
    """The folder in which keys begin, by where the manifest is; None if it is not where its key says."""
    parts = PurePosixPath(manifest.object_key).parts
    absolute = path.absolute()
    if not parts or absolute.parts[-len(parts) :] != parts:
        return None
    return Path(*absolute.parts[: -len(parts)])


class FolderObjects:
    """Keys are paths below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def fetch(self, file: File, scratch: Path) -> Path:
        """See Objects."""
        path = self._path(file.object_key)
        if path is None:
            raise NotThere(f"{file.object_key!r} is no key of an object")
        if not await asyncio.to_thread(path.is_file):
            raise NotThere(f"it is not there: {path}")
        return path

    async def unnamed(self, manifest: Manifest) -> Sequence[str]:
        """See Objects. What another task's manifest names, or looks like a recording of another task, is left out."""
        return await asyncio.to_thread(self._unnamed, manifest)

    def _unnamed(self, manifest: Manifest) -> list[str]:
        named = _keys(manifest)
        folders = {PurePosixPath(key).parent for key in named}
        own = PurePosixPath(manifest.object_key).parent
        of_mix = own.parent
        found = []
        for folder in sorted(folders):
            for name in self._names(folder):
                key = str(folder / name)
                if key in named:
                    continue
                if folder == own or self._is_ours(manifest, name, is_mix=folder == of_mix):
                    found.append(key)
        if found:
            others = self._named_by_others(folders)
            found = [key for key in found if key not in others]
        return found

    def _is_ours(self, manifest: Manifest, name: str, *, is_mix: bool) -> bool:
        if not _RECORDED.match(name):
            return True
        if is_mix:
            return name.startswith(f"{manifest.task_id}_")
        return name.startswith(f"{name_stamp(manifest.start_ns)}_")

    def _names(self, folder: PurePosixPath) -> Iterator[str]:
        path = self._root / folder
        if path.is_dir():
            yield from sorted(entry.name for entry in path.iterdir() if entry.is_file())

    def _named_by_others(self, folders: set[PurePosixPath]) -> set[str]:
        named: set[str] = set()
        for place in {folder.parent for folder in folders} | folders:
            path = self._root / place
            for manifest in (*path.glob(f"*/{_MANIFEST}"), *path.glob(f"*/*/{_MANIFEST}")):
                try:
                    named |= _keys(read_manifest(manifest.read_bytes()))
                except (OSError, ManifestError):
                    continue
        return named

    def _path(self, key: str) -> Path | None:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or "\0" in key:
            return None
        return self._root.joinpath(*parts)


def _keys(manifest: Manifest) -> set[str]:
    keys = {manifest.object_key}
    for recording in manifest.recordings:
        for segment in recording.segments:
            keys.update(file.object_key for file in segment.files)
        keys.update(file.object_key for file in recording.joined_files)
    keys.discard("")
    return keys
