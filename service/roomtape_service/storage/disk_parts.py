"""Multipart uploads in a folder: files of their own, in which each part has its place from the start.

An upload `<id>` is two files: `<id>.key`, which says what it is to become, and `<id>`, its bytes so far.
"""

import json
import os
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roomtape_service import failpoints
from roomtape_service.storage.store import BegunParts, PartsMissing, StoreRefused

__all__ = ["DiskParts"]

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_KEY_SUFFIX = ".key"


@dataclass(frozen=True, slots=True)
class _Plan:
    key: str
    part_bytes: int


class DiskParts:
    """The uploads in `folder`. All calls block and raise OSError besides what they say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def owns(self, path: Path) -> bool:
        """Whether the file belongs to an upload that can go on; a power cut may take away what it is to become."""
        return _read(path if path.suffix == _KEY_SUFFIX else self._key_path(path.name)) is not None

    def begin(self, key: str, part_bytes: int) -> str:
        """Returns the new upload's id."""
        self._folder.mkdir(parents=True, exist_ok=True)
        upload_id = secrets.token_hex(16)
        plan = json.dumps({"key": key, "part_bytes": part_bytes})
        # Of the two this one is there first and goes last: no bytes without a word of whose they are.
        self._key_path(upload_id).write_text(plan)
        (self._folder / upload_id).touch()
        return upload_id

    def put(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Writes a part to its place and syncs it. Returns its tag. Raises PartsMissing."""
        plan = self._plan(key, upload_id)
        if len(data) > plan.part_bytes:
            raise StoreRefused(
                "EntityTooLarge", f"A part of {len(data)} bytes is more than was said when it began."
            )
        try:
            descriptor = os.open(self._folder / upload_id, os.O_WRONLY)
        except FileNotFoundError as error:
            raise _missing(key) from error
        try:
            place, left = (number - 1) * plan.part_bytes, memoryview(data)
            while left:
                written = os.pwrite(descriptor, left, place)
                place, left = place + written, left[written:]
            # A tag is a promise also beyond a power cut.
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        return f"{zlib.crc32(data):08x}"

    def complete(self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int) -> Path:
        """The whole file, synced, to be renamed; `forget` comes after that. Raises PartsMissing."""
        plan = self._plan(key, upload_id)
        path = self._folder / upload_id
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise _missing(key) from error
        try:
            is_whole = sorted(tags) == list(range(1, len(tags) + 1))
            is_whole = is_whole and len(tags) == max(1, -(-size_bytes // plan.part_bytes))
            if not is_whole or os.fstat(descriptor).st_size != size_bytes:
                raise PartsMissing("InvalidPart", f"The parts of {key} are not those of {size_bytes} bytes.")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path

    def forget(self, upload_id: str) -> None:
        """The upload's file was renamed."""
        if _UPLOAD_ID.fullmatch(upload_id):
            failpoints.hit("disk.forget")
            self._key_path(upload_id).unlink(missing_ok=True)

    def abort(self, key: str, upload_id: str) -> None:
        """Removes the upload, if there is one."""
        try:
            self._plan(key, upload_id)
        except PartsMissing:
            return
        failpoints.hit("disk.abort")
        (self._folder / upload_id).unlink(missing_ok=True)
        self._key_path(upload_id).unlink(missing_ok=True)

    def begun(self, key_prefix: str) -> Sequence[BegunParts]:
        """Uploads whose keys start so."""
        found: list[BegunParts] = []
        for path in sorted(self._folder.glob(f"*{_KEY_SUFFIX}")):
            plan = _read(path)
            if plan is not None and plan.key.startswith(key_prefix):
                found.append(BegunParts(plan.key, path.stem))
        return found

    def _plan(self, key: str, upload_id: str) -> _Plan:
        plan = _read(self._key_path(upload_id)) if _UPLOAD_ID.fullmatch(upload_id) else None
        if plan is None or plan.key != key:
            raise _missing(key)
        return plan

    def _key_path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}{_KEY_SUFFIX}"


def _read(path: Path) -> _Plan | None:
    try:
        plan = json.loads(path.read_text())
        return _Plan(str(plan["key"]), int(plan["part_bytes"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _missing(key: str) -> PartsMissing:
    return PartsMissing("NoSuchUpload", f"There is no such multipart upload of {key!r}. It is begun anew.")
