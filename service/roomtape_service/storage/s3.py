"""A bucket of any S3-compatible object storage as a store. What differs from vendor to vendor is in `vendors`."""

import asyncio
import base64
import hashlib
import random
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

from roomtape_service import failpoints
from roomtape_service.storage.body import Body
from roomtape_service.storage.bucket import Bucket, S3Limits
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.clients import Account, S3Client, S3Clients
from roomtape_service.storage.credentials import KeyRing
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import (
    BegunParts,
    ObjectMissing,
    PartsMissing,
    PermissionRefused,
    SourceDamaged,
    StoredObject,
    StoreError,
    StoreRefused,
    check_size,
    check_stored,
)

__all__ = ["S3Limits", "S3Store"]

_SHA256 = "sha256"
# A part that fails is sent again by who knows which parts are there; until then its memory is others'.
_PART_ATTEMPTS = 2
# What some servers say to a part that they have, from a call whose answer was lost.
_NOT_IMPLEMENTED = "NotImplemented"


class _Body(Protocol):
    async def read(self) -> bytes: ...
    def close(self) -> None: ...


class S3Store:
    """A bucket. Clients and memory are shared with all other stores; a store itself holds nothing open."""

    def __init__(
        self,
        bucket: str,
        account: Account,
        keys: KeyRing,
        clients: S3Clients,
        memory: MemoryBudget,
        *,
        storage_class: str = "",
        tags: Mapping[str, str] | None = None,
        limits: S3Limits | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._memory = memory
        self._bucket = bucket
        self._storage_class = storage_class
        self._tags = dict(sorted((tags or {}).items()))
        self._calls = Bucket(
            bucket, account, keys, clients, limits or S3Limits(), randomness or random.Random()
        )

    @property
    def identity(self) -> str:
        # A vendor's buckets have one name for all of its endpoints; another server's have none beyond its own.
        account, vendor = self._calls.account, self._calls.vendor
        host = urlsplit(account.endpoint).netloc
        place = account.region if vendor.owns(host) else host
        return f"{vendor.name}:{place}:{self._bucket}"

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{quote(key, safe='/~')}"

    async def put(self, key: str, source: Path, sha256: str, content_type: str) -> StoredObject:
        try:
            size_bytes = (await asyncio.to_thread(source.stat)).st_size
            async with self._memory.take(size_bytes):
                data, md5 = await asyncio.to_thread(_read_whole, source, sha256)
                await self._put_object(key, data, md5, sha256, content_type)
        except FileNotFoundError as error:
            raise SourceDamaged("SourceMissing", f"{source} is gone.") from error
        except OSError as error:
            raise SourceDamaged("SourceUnreadable", f"{source} can't be read: {error.strerror}.") from error
        stored = await self.head(key)
        check_stored(stored, len(data), sha256)
        return stored

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        md5, sha256 = await asyncio.to_thread(lambda: (_md5(data), hashlib.sha256(data).hexdigest()))
        await self._put_object(key, data, md5, sha256, content_type)
        stored = await self.head(key)
        check_stored(stored, len(data), sha256)
        return stored

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = PART_BYTES) -> str:
        failpoints.hit("s3.begin")
        answer = await self._calls.call(
            "multipart",
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, **self._wishes()
            ),
        )
        failpoints.hit("s3.begin:after")
        return str(answer["UploadId"])

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        md5 = await asyncio.to_thread(_md5, data)
        failpoints.hit("s3.part")
        try:
            answer = await self._calls.call(
                "multipart",
                lambda s3: s3.upload_part(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=Body(data),
                    **self._md5(md5),
                ),
                len(data),
                attempts=_PART_ATTEMPTS,
            )
        except StoreRefused as error:
            if error.code == _NOT_IMPLEMENTED:
                raise PartsMissing(
                    error.code, f"The store has part {number} of {key} and replaces none. All are sent again."
                ) from error
            raise
        failpoints.hit("s3.part:after")
        return str(answer["ETag"])

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        failpoints.hit("s3.complete")
        try:
            await self._calls.call(
                "multipart",
                lambda s3: s3.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                ),
            )
        except PartsMissing as missing:
            # A call whose answer was lost may have completed it; what the store has then tells.
            try:
                stored = await self.head(key)
            except ObjectMissing:
                raise missing from None
            if stored.size_bytes != size_bytes:
                raise
            return stored
        failpoints.hit("s3.complete:after")
        stored = await self.head(key)
        check_size(stored, size_bytes)
        return stored

    async def abort_parts(self, key: str, upload_id: str) -> None:
        failpoints.hit("s3.abort")
        with suppress(PartsMissing, ObjectMissing):
            await self._calls.call(
                "multipart",
                lambda s3: s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id),
            )

    async def list_parts_begun(self, key_prefix: str) -> Sequence[BegunParts]:
        found: list[BegunParts] = []
        place: dict[str, str] = {}
        while True:
            answer = await self._calls.call(
                "list", partial(self._list_uploads, {"Prefix": key_prefix, **place})
            )
            uploads = cast(Sequence[Mapping[str, str]], answer.get("Uploads", ()))
            # Not every server keeps to the prefix.
            found += [
                BegunParts(upload["Key"], upload["UploadId"])
                for upload in uploads
                if upload["Key"].startswith(key_prefix)
            ]
            before = place
            place = (
                {"KeyMarker": uploads[-1]["Key"], "UploadIdMarker": uploads[-1]["UploadId"]}
                if uploads
                else {}
            )
            # A server that knows no markers would give its first page for ever.
            if not answer.get("IsTruncated") or place in ({}, before):
                return found

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[StoredObject]:
        # The first version of the call, which every vendor has.
        answer = await self._calls.call(
            "list",
            lambda s3: s3.list_objects(Bucket=self._bucket, Prefix=prefix, Marker=after, MaxKeys=limit),
        )
        objects = cast(Sequence[Mapping[str, object]], answer.get("Contents", ()))
        return [StoredObject(str(entry["Key"]), cast(int, entry["Size"]), None) for entry in objects]

    async def head(self, key: str) -> StoredObject:
        answer = await self._calls.call("head", lambda s3: s3.head_object(Bucket=self._bucket, Key=key))
        metadata = cast(Mapping[str, str], answer.get("Metadata", {}))
        return StoredObject(key, cast(int, answer["ContentLength"]), metadata.get(_SHA256))

    async def check_wishes(self, key: str) -> None:
        """Raises StoreRefused unless the object has the storage class and the tags that were asked for.

        Stores may take both without a word and forget them.
        """
        if self._storage_class:
            answer = await self._calls.call("head", lambda s3: s3.head_object(Bucket=self._bucket, Key=key))
            # The class that stores have by default is not said.
            if (found := str(answer.get("StorageClass") or "STANDARD")) != self._storage_class:
                raise StoreRefused(
                    "StorageClassIgnored",
                    f"The object has the class {found}, not {self._storage_class}. Leave `storage_class` out, or ask "
                    "the store's operator why it is not kept.",
                )
        if not self._tags:
            return
        try:
            answer = await self._calls.call(
                "head", lambda s3: s3.get_object_tagging(Bucket=self._bucket, Key=key)
            )
        except PermissionRefused:
            # To see them takes a permission that nothing else needs.
            return
        except StoreError as error:
            raise StoreRefused(
                "TagsIgnored",
                f"The store can't say which tags an object has ({error.code}), so it hardly keeps any. Leave `tags` "
                "out, or ask its operator.",
            ) from error
        entries = cast(Sequence[Mapping[str, str]], answer.get("TagSet", ()))
        if {entry["Key"]: entry["Value"] for entry in entries} != self._tags:
            raise StoreRefused(
                "TagsIgnored",
                "The object has not the tags that it was put with. Leave `tags` out, or ask the store's operator why "
                "they are not kept.",
            )

    async def read(self, key: str, start: int, length: int) -> bytes:
        async def read(s3: S3Client) -> bytes:
            answer = await s3.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={start}-{start + length - 1}"
            )
            body = cast(_Body, answer["Body"])
            try:
                return await body.read()
            finally:
                body.close()

        try:
            return await self._calls.call("read", read, length)
        except StoreRefused as error:
            if error.code == "InvalidRange":
                return b""
            raise

    async def delete(self, key: str) -> None:
        failpoints.hit("s3.delete")
        with suppress(ObjectMissing):
            await self._calls.call("delete", lambda s3: s3.delete_object(Bucket=self._bucket, Key=key))

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        parameters = {"Bucket": self._bucket, "Key": key}
        parameters |= {f"Response{name.replace('-', '')}": value for name, value in headers.items()}
        return await self._calls.call(
            "read",
            lambda s3: s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=lifetime_seconds),
        )

    async def _put_object(self, key: str, data: bytes, md5: str, sha256: str, content_type: str) -> None:
        failpoints.hit("s3.put")
        await self._calls.call(
            "put",
            lambda s3: s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=Body(data),
                ContentType=content_type,
                Metadata={_SHA256: sha256},
                **self._wishes(),
                **self._md5(md5),
            ),
            len(data),
        )
        failpoints.hit("s3.put:after")

    def _list_uploads(self, parameters: Mapping[str, str], s3: S3Client) -> Awaitable[Mapping[str, object]]:
        return s3.list_multipart_uploads(Bucket=self._bucket, **parameters)

    def _wishes(self) -> Mapping[str, str]:
        """Sent only where settings ask for it: stores refuse classes that are others' or none of theirs."""
        wishes = {"StorageClass": self._storage_class} if self._storage_class else {}
        return wishes | ({"Tagging": urlencode(self._tags, quote_via=quote)} if self._tags else {})

    def _md5(self, md5: str) -> Mapping[str, str]:
        return {"ContentMD5": md5} if self._calls.vendor.part_md5 else {}


def _read_whole(source: Path, sha256: str) -> tuple[bytes, str]:
    """The file and its MD5. Raises SourceDamaged, OSError."""
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SourceDamaged("SourceDiffers", f"{source} is not what was recorded: its SHA-256 differs.")
    return data, _md5(data)


def _md5(data: bytes) -> str:
    """As Content-MD5 has it, in base 64."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
