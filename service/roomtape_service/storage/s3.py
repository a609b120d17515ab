"""A bucket of any S3-compatible object storage as a store. What differs from vendor to vendor is in `vendors`."""

import asyncio
import base64
import hashlib
import io
import os
import random
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

from roomtape_service.storage.bucket import Bucket, S3Limits
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.clients import Account, S3Client, S3Clients
from roomtape_service.storage.credentials import KeyRing
from roomtape_service.storage.part import PART_BYTES, Part, part_bytes_for, parts_of
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
# Aborting saves the bucket's owner money; it must not hold up who cancelled.
_ABORT_SECONDS = 5.0


class _Body(Protocol):
    async def read(self) -> bytes: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Upload:
    """A file on its way; `read` must be called in the order of its bytes."""

    key: str
    file: BinaryIO
    size_bytes: int
    sha256: str
    content_type: str
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def read(self, part: Part) -> tuple[bytes, str]:
        """The part and its MD5 in base 64. Raises SourceDamaged when the file has become shorter."""
        data = os.pread(self.file.fileno(), part.length, part.start)
        if len(data) != part.length:
            raise SourceDamaged("SourceDiffers", f"{self.file.name} has become shorter.")
        self._digest.update(data)
        return data, _md5(data)

    def check(self) -> None:
        """Raises SourceDamaged unless what was read is what was recorded."""
        if self._digest.hexdigest() != self.sha256:
            raise SourceDamaged(
                "SourceDiffers", f"{self.file.name} is not what was recorded: its SHA-256 differs."
            )


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

    async def put(
        self, key: str, source: Path, sha256: str, content_type: str, *, parallel_parts: int = 4
    ) -> StoredObject:
        try:
            with source.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                upload = _Upload(key, file, size_bytes, sha256, content_type)
                if size_bytes > PART_BYTES:
                    parts = parts_of(size_bytes, part_bytes_for(size_bytes))
                    await self._put_parts(upload, parts, parallel_parts)
                else:
                    await self._put_whole(upload)
        except FileNotFoundError as error:
            raise SourceDamaged("SourceMissing", f"{source} is gone.") from error
        except OSError as error:
            raise SourceDamaged("SourceUnreadable", f"{source} can't be read: {error.strerror}.") from error
        stored = await self.head(key)
        check_stored(stored, size_bytes, sha256)
        return stored

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> StoredObject:
        md5, sha256 = await asyncio.to_thread(lambda: (_md5(data), hashlib.sha256(data).hexdigest()))
        await self._put_object(key, data, md5, sha256, content_type)
        stored = await self.head(key)
        check_stored(stored, len(data), sha256)
        return stored

    async def begin_parts(self, key: str, content_type: str, *, part_bytes: int = PART_BYTES) -> str:
        answer = await self._calls.call(
            "multipart",
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, **self._wishes()
            ),
        )
        return str(answer["UploadId"])

    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        md5 = await asyncio.to_thread(_md5, data)
        answer = await self._calls.call(
            "multipart",
            lambda s3: s3.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=io.BytesIO(data),
                **self._md5(md5),
            ),
            len(data),
        )
        return str(answer["ETag"])

    async def complete_parts(
        self, key: str, upload_id: str, tags: Mapping[int, str], size_bytes: int
    ) -> StoredObject:
        try:
            await self._complete(key, upload_id, tags)
        except PartsMissing as missing:
            # A call whose answer was lost may have completed it; what the store has then tells.
            try:
                stored = await self.head(key)
            except ObjectMissing:
                raise missing from None
            if stored.size_bytes != size_bytes:
                raise
            return stored
        stored = await self.head(key)
        check_size(stored, size_bytes)
        return stored

    async def abort_parts(self, key: str, upload_id: str) -> None:
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
            if not answer.get("IsTruncated") or not uploads:
                return found
            place = {"KeyMarker": uploads[-1]["Key"], "UploadIdMarker": uploads[-1]["UploadId"]}

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
        with suppress(ObjectMissing):
            await self._calls.call("delete", lambda s3: s3.delete_object(Bucket=self._bucket, Key=key))

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        parameters = {"Bucket": self._bucket, "Key": key}
        parameters |= {f"Response{name.replace('-', '')}": value for name, value in headers.items()}
        return await self._calls.call(
            "read",
            lambda s3: s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=lifetime_seconds),
        )

    async def _put_whole(self, upload: _Upload) -> None:
        async with self._memory.take(upload.size_bytes):
            data, md5 = await asyncio.to_thread(upload.read, Part(1, 0, upload.size_bytes))
            upload.check()
            await self._put_object(upload.key, data, md5, upload.sha256, upload.content_type)

    async def _put_object(self, key: str, data: bytes, md5: str, sha256: str, content_type: str) -> None:
        await self._calls.call(
            "put",
            lambda s3: s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=io.BytesIO(data),
                ContentType=content_type,
                Metadata={_SHA256: sha256},
                **self._wishes(),
                **self._md5(md5),
            ),
            len(data),
        )

    async def _put_parts(self, upload: _Upload, parts: Sequence[Part], parallel_parts: int) -> None:
        """A multipart upload.

        1. Abort what an earlier process left under this key: vendors charge for parts that nobody completes.
        2. Read the parts in order, so that the file's SHA-256 comes out, and send several at once.
        3. Complete only if the SHA-256 is the recorded one; abort in every other case.
        """
        key = upload.key
        await self._abort_left_uploads(key)
        created = await self._calls.call(
            "multipart",
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ContentType=upload.content_type,
                Metadata={_SHA256: upload.sha256},
                **self._wishes(),
            ),
        )
        upload_id = str(created["UploadId"])
        try:
            tags = await self._send_parts(upload, upload_id, parts, parallel_parts)
            upload.check()
            with suppress(PartsMissing):
                await self._complete(key, upload_id, tags)
        except BaseException:
            await self._abort(key, upload_id)
            raise

    async def _send_parts(
        self, upload: _Upload, upload_id: str, parts: Sequence[Part], parallel_parts: int
    ) -> Mapping[int, str]:
        tags: dict[int, str] = {}
        slots = asyncio.Semaphore(parallel_parts)

        async def send(part: Part, data: bytes, md5: str) -> None:
            answer = await self._calls.call(
                "multipart",
                lambda s3: s3.upload_part(
                    Bucket=self._bucket,
                    Key=upload.key,
                    UploadId=upload_id,
                    PartNumber=part.number,
                    Body=io.BytesIO(data),
                    **self._md5(md5),
                ),
                part.length,
            )
            tags[part.number] = str(answer["ETag"])

        def sent(taken: int, _: asyncio.Task[None]) -> None:
            self._memory.release(taken)
            slots.release()

        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    await slots.acquire()
                    taken = await self._memory.acquire(part.length)
                    try:
                        data, md5 = await asyncio.to_thread(upload.read, part)
                        task = group.create_task(send(part, data, md5))
                    except BaseException:
                        self._memory.release(taken)
                        raise
                    task.add_done_callback(partial(sent, taken))
                    del data
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return tags

    async def _complete(self, key: str, upload_id: str, tags: Mapping[int, str]) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        await self._calls.call(
            "multipart",
            lambda s3: s3.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            ),
        )

    async def _abort(self, key: str, upload_id: str) -> None:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._calls.call(
                    "multipart",
                    lambda s3: s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id),
                )

    async def _abort_left_uploads(self, key: str) -> None:
        with suppress(StoreError):
            answer = await self._calls.call(
                "multipart",
                lambda s3: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=key),
                attempts=1,
            )
            for left in cast(Sequence[Mapping[str, str]], answer.get("Uploads", ())):
                if left.get("Key") == key:
                    await self._abort(key, left["UploadId"])

    def _list_uploads(self, parameters: Mapping[str, str], s3: S3Client) -> Awaitable[Mapping[str, object]]:
        return s3.list_multipart_uploads(Bucket=self._bucket, **parameters)

    def _wishes(self) -> Mapping[str, str]:
        """Sent only where settings ask for it: stores refuse classes that are others' or none of theirs."""
        wishes = {"StorageClass": self._storage_class} if self._storage_class else {}
        return wishes | ({"Tagging": urlencode(self._tags, quote_via=quote)} if self._tags else {})

    def _md5(self, md5: str) -> Mapping[str, str]:
        return {"ContentMD5": md5} if self._calls.vendor.part_md5 else {}


def _md5(data: bytes) -> str:
    """As Content-MD5 has it, in base 64."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
