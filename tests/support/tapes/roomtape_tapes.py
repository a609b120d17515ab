"""A store that another distribution could bring: shelves of tapes in memory, each behind a code."""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roomtape_service.storage.store import (
    BegunParts,
    CredentialsRefused,
    ObjectMissing,
    PartsMissing,
    SourceDamaged,
    StoredObject,
    check_size,
)

__all__ = ["Tapes"]


@dataclass(slots=True)
class _Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Shelf:
    tapes: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)


class Tapes:
    """The kind: what the entry point leads to."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self.is_closed = False

    def problems(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> Mapping[str, str]:
        """A shelf and a code are needed."""
        found = {name: "is no option; there is `shelf`" for name in options if name != "shelf"}
        if not options.get("shelf"):
            found["shelf"] = "is required; write the number of a shelf"
        if len(secrets.get("code", "")) < 4:
            found["code"] = "is required, with 4 digits or more"
        return found

    def store(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> "TapeStore":
        """The shelf."""
        number = options.get("shelf", "")
        return TapeStore(number, self._shelves.setdefault(number, _Shelf()), secrets.get("code", ""))

    async def aclose(self) -> None:
        """Forgets everything."""
        self._shelves.clear()
        self.is_closed = True


class TapeStore:
    """One shelf. The code of a shelf ends with its number."""

    def __init__(self, number: str, shelf: _Shelf, code: str) -> None:
        self._number = number
        self._shelf = shelf
        self._code = code

    @property
    def identity(self) -> str:
        return f"tapes:{self._number}"

    def url(self, key: str) -> str:
        return f"tapes://{self._number}/{key}"

    async def put(self, key: str, source: Path, sha256: str, content_type: str) -> StoredObject:
        try:
            data = await asyncio.to_thread(source.read_bytes)
        except OSError as error:
            raise SourceDamaged("SourceMissing", f"{source} can't be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SourceDamaged("SourceDiffers", f"{source} is not what was recorded.")
        return await self.put_bytes(key, data, content_type)

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        self._open().tapes[key] = data
        return await self.head(key)

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = 0) -> str:
        upload_id = secrets.token_hex(8)
        self._open().uploads[upload_id] = _Upload(key)
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        self._upload(upload_id).parts[number] = data
        return f"{number}-{len(data)}"

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        shelf = self._open()
        if upload_id in shelf.uploads:
            upload = shelf.uploads.pop(upload_id)
            shelf.tapes[key] = b"".join(upload.parts[number] for number in sorted(tags))
        elif len(shelf.tapes.get(key, b"")) != size_bytes or key not in shelf.tapes:
            raise PartsMissing("NoSuchUpload", f"There is no upload {upload_id}.")
        stored = await self.head(key)
        check_size(stored, size_bytes)
        return stored

    async def abort_parts(self, key: str, upload_id: str) -> None:
        self._open().uploads.pop(upload_id, None)

    async def list_parts_begun(self, key_prefix: str) -> Sequence[BegunParts]:
        uploads = self._open().uploads.items()
        return [BegunParts(begun.key, i) for i, begun in uploads if begun.key.startswith(key_prefix)]

    async def head(self, key: str) -> StoredObject:
        return StoredObject(key, len(self._tape(key)), None)

    async def read(self, key: str, start: int, length: int) -> bytes:
        return self._tape(key)[start : start + length]

    async def delete(self, key: str) -> None:
        self._open().tapes.pop(key, None)

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        return None

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[StoredObject]:
        tapes = self._open().tapes
        keys = sorted(key for key in tapes if key.startswith(prefix) and key > after)
        return [StoredObject(key, len(tapes[key]), None) for key in keys[:limit]]

    def _open(self) -> _Shelf:
        if not self._code.endswith(self._number):
            raise CredentialsRefused(
                "WrongCode", f"The code does not open shelf {self._number}. Set another."
            )
        return self._shelf

    def _upload(self, upload_id: str) -> _Upload:
        upload = self._open().uploads.get(upload_id)
        if upload is None:
            raise PartsMissing("NoSuchUpload", f"There is no upload {upload_id}.")
        return upload

    def _tape(self, key: str) -> bytes:
        data = self._open().tapes.get(key)
        if data is None:
            raise ObjectMissing("NoSuchTape", f"There is no tape {key!r}.")
        return data
