"""A folder of this machine as a store."""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from roomtape_service import failpoints
from roomtape_service.storage.disk_parts import DiskParts
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import (
    BegunParts,
    ObjectMissing,
    PartsMissing,
    PermissionRefused,
    SourceDamaged,
    StoredObject,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    check_size,
    check_stored,
)

__all__ = ["DiskStore"]

P = ParamSpec("P")
T = TypeVar("T")

_COPY_BYTES = 1 << 20
# A disk that hangs (a network file system, a broken drive) must not hang the caller.
_CALL_SECONDS = 60.0
_LEAST_BYTES_PER_SECOND = 1 << 20
_PARTS = ".parts"
_PART_NAME_DIGITS = 32
_STALE_PART_SECONDS = 24 * 3600.0
_MAX_NAME_BYTES = 255

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class DiskStore:
    """The folder `folder` below `root`; keys are paths below it, and none leaves it.

    An object appears whole or not at all, also through a crash: it is written beside, synced, and renamed.
    """

    def __init__(self, root: Path, folder: str, threads: Executor | None = None) -> None:
        """`threads` are what its calls run in: a disk that hangs keeps those, and nobody else's."""
        self._threads = threads
        self.folder = folder
        self._top = root / folder
        self._parts = DiskParts(self._top / _PARTS)

    @property
    def identity(self) -> str:
        return f"disk:{self.folder}"

    def url(self, key: str) -> str:
        return self.path(key).absolute().as_uri()

    def path(self, key: str) -> Path:
        """Where the object of this key is or would be. Raises StoreRefused for a key that is no path below here."""
        parts = key.split("/")
        for part in parts:
            if part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > _MAX_NAME_BYTES:
                raise StoreRefused("InvalidKey", f"{key!r} can't be the name of a file.")
        if parts[0] == _PARTS:
            raise StoreRefused("InvalidKey", f"{key!r} is where files lie that are being written.")
        return self._top.joinpath(*parts)

    async def put(self, key: str, source: Path, sha256: str, content_type: str) -> StoredObject:
        target, size_bytes = self.path(key), 0
        # What is wrong with the file is found where it is read.
        with suppress(OSError):
            size_bytes = source.stat().st_size
        seconds = _CALL_SECONDS + size_bytes / _LEAST_BYTES_PER_SECOND
        return await self._in_thread(self._put, seconds, key, source, target, sha256)

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        return await self._in_thread(self._put_bytes, _CALL_SECONDS, key, data, self.path(key))

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = PART_BYTES) -> str:
        self.path(key)
        return await self._in_thread(self._parts.begin, _CALL_SECONDS, key, part_bytes)

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        seconds = _CALL_SECONDS + len(data) / _LEAST_BYTES_PER_SECOND
        return await self._in_thread(self._parts.put, seconds, key, upload_id, number, data)

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        return await self._in_thread(
            self._complete, _CALL_SECONDS, key, upload_id, tags, size_bytes, self.path(key)
        )

    async def abort_parts(self, key: str, upload_id: str) -> None:
        await self._in_thread(self._parts.abort, _CALL_SECONDS, key, upload_id)

    async def list_parts_begun(self, key_prefix: str) -> Sequence[BegunParts]:
        return await self._in_thread(self._parts.begun, _CALL_SECONDS, key_prefix)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[StoredObject]:
        return await self._in_thread(self._list, _CALL_SECONDS, prefix, after, limit)

    async def head(self, key: str) -> StoredObject:
        return await self._in_thread(self._head, _CALL_SECONDS, key, self.path(key))

    async def read(self, key: str, start: int, length: int) -> bytes:
        return await self._in_thread(self._read, _CALL_SECONDS, key, self.path(key), start, length)

    async def delete(self, key: str) -> None:
        await self._in_thread(self._delete, _CALL_SECONDS, self.path(key))

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        return None

    async def remove_stale_parts(self, now_seconds: float) -> None:
        """Removes what processes left that ended while they wrote, a day ago or longer.

        Multipart uploads stay: they go on after a restart.
        """
        await self._in_thread(self._remove_stale_parts, _CALL_SECONDS, now_seconds)

    async def _in_thread(self, call: Callable[P, T], seconds: float, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, partial(call, *args, **kwargs))
        except TimeoutError as error:
            raise StoreUnavailable("Timeout", f"The disk did not answer within {seconds:.0f} s.") from error
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "EIO")
            text = f"{error.filename or 'The disk'}: {error.strerror or error}."
            if error.errno in _FULL:
                raise StoreFull(code, f"{text} Make room on the disk of the storage root.") from error
            if error.errno in _FORBIDDEN:
                raise PermissionRefused(
                    code, f"{text} Let the server's user write below the storage root."
                ) from error
            raise StoreUnavailable(code, f"{text} It is tried again by itself.") from error

    def _put(self, key: str, source: Path, target: Path, sha256: str) -> StoredObject:
        part = self._new_part(key)
        try:
            try:
                reader = source.open("rb")
            except FileNotFoundError as error:
                raise SourceDamaged("SourceMissing", f"{source} is gone.") from error
            except OSError as error:
                raise SourceDamaged(
                    "SourceUnreadable", f"{source} can't be read: {error.strerror}."
                ) from error
            with reader, part.open("xb") as writer:
                digest = hashlib.sha256()
                size_bytes = 0
                while data := reader.read(_COPY_BYTES):
                    digest.update(data)
                    size_bytes += writer.write(data)
                writer.flush()
                os.fsync(writer.fileno())
            if digest.hexdigest() != sha256:
                raise SourceDamaged(
                    "SourceDiffers", f"{source} is not what was recorded: its SHA-256 differs."
                )
            self._appear(part, target)
        finally:
            part.unlink(missing_ok=True)
        stored = self._head(key, target)
        check_stored(stored, size_bytes, sha256)
        return stored

    def _put_bytes(self, key: str, data: bytes, target: Path) -> StoredObject:
        part = self._new_part(key)
        try:
            with part.open("xb") as writer:
                writer.write(data)
                writer.flush()
                os.fsync(writer.fileno())
            self._appear(part, target)
        finally:
            part.unlink(missing_ok=True)
        return self._head(key, target)

    def _complete(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int, target: Path
    ) -> StoredObject:
        try:
            part = self._parts.complete(key, upload_id, tags, size_bytes)
        except PartsMissing as missing:
            try:
                stored = self._head(key, target)
            except ObjectMissing:
                raise missing from None
            if stored.size_bytes != size_bytes:
                raise
        else:
            self._appear(part, target)
            stored = self._head(key, target)
            check_size(stored, size_bytes)
        self._parts.forget(upload_id)
        return stored

    def _new_part(self, key: str) -> Path:
        """Where an object is written. What an attempt left that ended with its process goes."""
        folder, name = self._top / _PARTS, hashlib.sha256(key.encode()).hexdigest()[:_PART_NAME_DIGITS]
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{name}-*"):
            failpoints.hit("disk.forget")
            left.unlink(missing_ok=True)
        return folder / f"{name}-{secrets.token_hex(8)}"

    def _appear(self, part: Path, target: Path) -> None:
        """Gives a file that is synced its name, so that a crash leaves it there or here."""
        is_new_folder = not target.parent.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        failpoints.hit("disk.appear")
        part.rename(target)
        _sync(target.parent)
        if is_new_folder:
            for folder in target.parent.parents:
                _sync(folder)
                if folder == self._top.parent:
                    break

    def _list(self, prefix: str, after: str, limit: int) -> Sequence[StoredObject]:
        return [
            StoredObject(key, path.stat().st_size, None)
            for key, path in islice(_walk(self._top, "", prefix, after), limit)
        ]

    def _head(self, key: str, path: Path) -> StoredObject:
        with _object_missing(key):
            return StoredObject(key, path.stat().st_size, None)

    def _read(self, key: str, path: Path, start: int, length: int) -> bytes:
        with _object_missing(key), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def _delete(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            failpoints.hit("disk.delete")
            path.unlink()
        for folder in path.parents:
            if folder == self._top:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def _remove_stale_parts(self, now_seconds: float) -> None:
        with suppress(FileNotFoundError):
            for part in (self._top / _PARTS).iterdir():
                age_seconds = now_seconds - part.stat().st_mtime
                if age_seconds > _STALE_PART_SECONDS and not self._parts.owns(part):
                    failpoints.hit("disk.forget")
                    part.unlink(missing_ok=True)


def _walk(folder: Path, base: str, prefix: str, after: str) -> Iterator[tuple[str, Path]]:
    """Keys and paths of the files below `folder`, whose keys begin with `base`, in the order of the keys' bytes."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    names = [f"{entry.name}/" if entry.name in folders else entry.name for entry in entries]
    for name in sorted(names, key=os.fsencode):
        key = f"{base}{name}"
        if key == f"{_PARTS}/":
            continue
        if name.endswith("/"):
            may_match = key.startswith(prefix) or prefix.startswith(key)
            # Every key below begins with `key`; all of them are passed when `after` is behind that.
            is_passed = os.fsencode(key) < os.fsencode(after) and not after.startswith(key)
            if may_match and not is_passed:
                yield from _walk(folder / name, key, prefix, after)
        elif key.startswith(prefix) and os.fsencode(key) > os.fsencode(after):
            yield key, folder / name


@contextmanager
def _object_missing(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectMissing("NoSuchKey", f"There is no object {key!r}.") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
