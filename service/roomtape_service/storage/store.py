"""What a store is, and how it fails.

StoreError                    a call to a store failed
├── StoreUnavailable          it passes by itself: no answer, throttled, an error of the store's own
│   ├── ObjectDiffers         what the store has is not what was put
│   └── PartsMissing          the store has a multipart upload, or parts of it, no more
├── ObjectMissing             there is no such object
├── StoreRefused              it stays until somebody acts: settings, permissions, the account
│   ├── AddressRefused        wrong region, wrong endpoint, bucket in the wrong place of the URL
│   ├── BucketMissing         no such bucket
│   ├── CredentialsRefused    unknown key, wrong secret, expired token
│   ├── PermissionRefused     the key may not do this
│   └── StoreFull             no room or no money left
└── SourceDamaged             the file to put is not the one that was recorded
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roomtape_service.storage.part import PART_BYTES

__all__ = [
    "AddressRefused",
    "BegunParts",
    "BucketMissing",
    "CredentialsRefused",
    "ObjectDiffers",
    "ObjectMissing",
    "PartsMissing",
    "PermissionRefused",
    "SourceDamaged",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreRefused",
    "StoreUnavailable",
    "StoredObject",
    "check_size",
    "check_stored",
]


class StoreError(Exception):
    """A call to a store failed.

    `code` is the store's own word for it, such as `NoSuchBucket`, or ours where there was no answer: `Timeout`,
    `ConnectionFailed`, `CertificateInvalid`. `message` says what went wrong and what to do; it never holds a secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class StoreUnavailable(StoreError):
    """The same call may work in a moment."""


class ObjectDiffers(StoreUnavailable):
    """The object's size or checksum is not that of the file; putting it again replaces it."""


class PartsMissing(StoreUnavailable):
    """Of a multipart upload that was completed, aborted or swept away; only a new one helps."""


class ObjectMissing(StoreError):
    """The bucket is there, the object is not."""


class StoreRefused(StoreError):
    """The same call fails until somebody changes the settings or the account."""


class ObjectArchived(StoreRefused):
    """The object can't be read before somebody restores it: its storage class is one of an archive."""


class AddressRefused(StoreRefused):
    """Region, endpoint or addressing style is not the bucket's."""


class BucketMissing(StoreRefused):
    """There is no such bucket; buckets are never created by the server."""


class CredentialsRefused(StoreRefused):
    """The key is unknown, its secret wrong, or its token expired."""


class PermissionRefused(StoreRefused):
    """The key is right and may not do this."""


class StoreFull(StoreRefused):
    """No space, no quota, or the account is suspended."""


class SourceDamaged(StoreError):
    """The file to put is gone or can't be read, or its SHA-256 is not the recorded one."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says of an object. `sha256` is lower-case hexadecimal, or None where it does not keep it."""

    key: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class BegunParts:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str


class Store(Protocol):
    """Object storage or a folder. All calls raise StoreError and nothing else; every call ends in bounded time.

    Keys are those of `rules.naming`: parts of `[A-Za-z0-9._~-]` (a prefix's parts, too) with slashes between them;
    a store must take any other UTF-8 text without `.` and `..` parts as well.
    """

    @property
    def identity(self) -> str:
        """Names the place, not the keys to it: equal for settings that reach the same objects."""
        ...

    def url(self, key: str) -> str:
        """Where the object is, for people and programs that have access of their own: `s3://…` or `file://…`."""
        ...

    async def put(self, key: str, source: Path, sha256: str, content_type: str) -> StoredObject:
        """Puts the file `source` under `key`, in place of what was there, and asks the store for what it has.

        In one request; uploads put files of more than PART_BYTES in parts, so that they go on where they stopped.

        Returns after the store confirmed the size, every byte was checked against `sha256` on its way, and the
        checksum equals where the store keeps it. Cancelling leaves either nothing or the whole object.
        Raises SourceDamaged, ObjectDiffers.
        """
        ...

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        """Puts a small object (up to PART_BYTES) under `key`, as `put` does."""
        ...

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = PART_BYTES) -> str:
        """Begins a multipart upload, of which nothing is seen under `key` before it is completed.

        Returns the store's id of it. `part_bytes` is the size of each part but the last, which may have less.
        """
        ...

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Puts a part; parts may come in any order. The same number again replaces it.

        `number` counts from 1. Returns the part's tag, for `complete_parts`: 1 to 256 characters.
        Raises PartsMissing when there is no such upload.
        """
        ...

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        """Makes the parts the object `key`, in place of what was there, and asks the store for what it has.

        `tags` are those of all parts, whose numbers have no gaps. May be called again when an answer was lost: an
        object of this size without the upload is the completed one. Raises PartsMissing, ObjectDiffers.
        """
        ...

    async def abort_parts(self, key: str, upload_id: str) -> None:
        """Ends a multipart upload and frees its parts; nothing happens when there is none."""
        ...

    async def list_parts_begun(self, key_prefix: str) -> Sequence[BegunParts]:
        """Multipart uploads under keys that start so. For cleaning up alone: stores may be late to know of them."""
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[StoredObject]:
        """Objects whose keys start so, without `sha256`: at most `limit` (1 to 1,000), fewer only at the end.

        The order is the store's own, for most that of the keys' UTF-8; `after` is the last key of the page before.
        """
        ...

    async def head(self, key: str) -> StoredObject:
        """What the store has under `key`. Raises ObjectMissing."""
        ...

    async def read(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`, fewer at the object's end.

        Raises ObjectMissing, ObjectArchived.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; nothing happens when there is none."""
        ...

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        """A URL that gives the object to anybody until it expires; None where the server must play it itself.

        `headers` are `Content-Type` and `Content-Disposition` of the answer.
        """
        ...


def check_stored(stored: StoredObject, size_bytes: int, sha256: str) -> None:
    """Raises ObjectDiffers unless the store has what was put."""
    check_size(stored, size_bytes)
    if stored.sha256 is not None and stored.sha256 != sha256:
        raise ObjectDiffers(
            "ChecksumDiffers",
            f"The store has {stored.key} with SHA-256 {stored.sha256}, the file has {sha256}. It is put again.",
        )


def check_size(stored: StoredObject, size_bytes: int) -> None:
    """Raises ObjectDiffers unless the store has as many bytes as were put."""
    if stored.size_bytes != size_bytes:
        raise ObjectDiffers(
            "SizeDiffers",
            f"The store has {stored.size_bytes} bytes of {stored.key}, the file has {size_bytes}. It is put again.",
        )
