"""A bucket of any S3-compatible object storage as a store. What differs from vendor to vendor is in `vendors`."""

import asyncio
import base64
import hashlib
import io
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast
from urllib.parse import quote, urlsplit

import aiohttp
from botocore import exceptions

from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.clients import Account, S3Client, S3Clients
from roomtape_service.storage.part import Part, parts_of
from roomtape_service.storage.store import (
    ObjectMissing,
    SourceDamaged,
    StoredObject,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    check_stored,
)
from roomtape_service.storage.troubles import Place, trouble
from roomtape_service.storage.vendors import VENDORS

__all__ = ["S3Limits", "S3Store"]

T = TypeVar("T")

_SHA256 = "sha256"
# A multipart upload that was completed, aborted or swept away; only a new one helps.
_UPLOAD_GONE = "NoSuchUpload"
_DETAIL_CHARACTERS = 300
# Aborting saves the bucket's owner money; it must not hold up who cancelled.
_ABORT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class S3Limits:
    """How long calls may take, and how often they are tried before the caller gets the error."""

    call_seconds: float = 30.0
    """For a call without its body. Nothing else ends a call to a server that stops reading."""
    least_bytes_per_second: float = 128 * 1024
    """A body at this speed is in time."""
    attempts: int = 4
    """How often a call that may pass by itself is made; what goes on longer is for the caller to wait out."""
    first_wait_seconds: float = 0.2
    """The wait before the second attempt is random up to this; it doubles from attempt to attempt."""


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
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return data, base64.b64encode(md5).decode("ascii")

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
        clients: S3Clients,
        memory: MemoryBudget,
        *,
        limits: S3Limits | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._bucket = bucket
        self._account = account
        self._vendor = VENDORS[account.vendor]
        self._clients = clients
        self._memory = memory
        self._limits = limits or S3Limits()
        self._random = randomness or random.Random()

    @property
    def identity(self) -> str:
        # A vendor's buckets have one name for all of its endpoints; another server's have none beyond its own.
        host = urlsplit(self._account.endpoint).netloc
        place = self._account.region if self._vendor.owns(host) else host
        return f"{self._vendor.name}:{place}:{self._bucket}"

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{quote(key, safe='/~')}"

    async def put(
        self, key: str, source: Path, sha256: str, content_type: str, *, parallel_parts: int = 4
    ) -> StoredObject:
        try:
            with source.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                upload = _Upload(key, file, size_bytes, sha256, content_type)
                if parts := parts_of(size_bytes):
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

    async def head(self, key: str) -> StoredObject:
        answer = await self._call("head", lambda s3: s3.head_object(Bucket=self._bucket, Key=key))
        metadata = cast(Mapping[str, str], answer.get("Metadata", {}))
        return StoredObject(key, cast(int, answer["ContentLength"]), metadata.get(_SHA256))

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
            return await self._call("read", read, length)
        except StoreRefused as error:
            if error.code == "InvalidRange":
                return b""
            raise

    async def delete(self, key: str) -> None:
        with suppress(ObjectMissing):
            await self._call("delete", lambda s3: s3.delete_object(Bucket=self._bucket, Key=key))

    async def playback_url(self, key: str, lifetime_seconds: int, headers: Mapping[str, str]) -> str | None:
        parameters = {"Bucket": self._bucket, "Key": key}
        parameters |= {f"Response{name.replace('-', '')}": value for name, value in headers.items()}
        return await self._call(
            "read",
            lambda s3: s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=lifetime_seconds),
        )

    async def _put_whole(self, upload: _Upload) -> None:
        async with self._memory.take(upload.size_bytes):
            data, md5 = await asyncio.to_thread(upload.read, Part(1, 0, upload.size_bytes))
            upload.check()
            await self._call(
                "put",
                lambda s3: s3.put_object(
                    Bucket=self._bucket,
                    Key=upload.key,
                    Body=io.BytesIO(data),
                    ContentType=upload.content_type,
                    Metadata={_SHA256: upload.sha256},
                    **self._md5(md5),
                ),
                upload.size_bytes,
            )

    async def _put_parts(self, upload: _Upload, parts: Sequence[Part], parallel_parts: int) -> None:
        """A multipart upload.

        1. Abort what an earlier process left under this key: vendors charge for parts that nobody completes.
        2. Read the parts in order, so that the file's SHA-256 comes out, and send several at once.
        3. Complete only if the SHA-256 is the recorded one; abort in every other case.
        """
        key = upload.key
        await self._abort_left_uploads(key)
        created = await self._call(
            "multipart",
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ContentType=upload.content_type,
                Metadata={_SHA256: upload.sha256},
            ),
        )
        upload_id = str(created["UploadId"])
        try:
            tags = await self._send_parts(upload, upload_id, parts, parallel_parts)
            upload.check()
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
            answer = await self._call(
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
        try:
            await self._call(
                "multipart",
                lambda s3: s3.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                ),
            )
        except StoreError as error:
            # An attempt whose answer was lost may have completed it; what the store has then tells.
            if error.code != _UPLOAD_GONE:
                raise

    async def _abort(self, key: str, upload_id: str) -> None:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._call(
                    "multipart",
                    lambda s3: s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id),
                )

    async def _abort_left_uploads(self, key: str) -> None:
        with suppress(StoreError):
            answer = await self._call(
                "multipart",
                lambda s3: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=key),
                attempts=1,
            )
            for left in cast(Sequence[Mapping[str, str]], answer.get("Uploads", ())):
                if left.get("Key") == key:
                    await self._abort(key, left["UploadId"])

    def _md5(self, md5: str) -> Mapping[str, str]:
        return {"ContentMD5": md5} if self._vendor.part_md5 else {}

    async def _call(
        self,
        step: str,
        make: Callable[[S3Client], Awaitable[T]],
        body_bytes: int = 0,
        *,
        attempts: int | None = None,
    ) -> T:
        limits = self._limits
        seconds = limits.call_seconds + body_bytes / limits.least_bytes_per_second
        wait_seconds = limits.first_wait_seconds
        left = attempts or limits.attempts
        while True:
            left -= 1
            try:
                async with self._clients.client(self._account) as client, asyncio.timeout(seconds):
                    return await make(client)
            except (exceptions.BotoCoreError, exceptions.ClientError, aiohttp.ClientError, OSError) as error:
                problem = self._trouble(step, error)
                if not left or not isinstance(problem, StoreUnavailable) or problem.code == _UPLOAD_GONE:
                    raise problem from error
            await asyncio.sleep(self._random.uniform(0, wait_seconds))
            wait_seconds *= 2

    def _trouble(self, step: str, error: Exception) -> StoreError:
        place = Place(self._vendor, self._bucket, self._account.region, self._host)
        if isinstance(error, exceptions.ClientError):
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            detail = str(said.get("Message", ""))[:_DETAIL_CHARACTERS]
            return trouble(place, step, str(said.get("Code", "")), detail, status)
        detail = str(error)[:_DETAIL_CHARACTERS]
        if isinstance(error, TimeoutError | exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
            return trouble(place, step, "Timeout", detail)
        if "CERTIFICATE_VERIFY_FAILED" in detail:
            return trouble(place, step, "CertificateInvalid", detail)
        if isinstance(error, exceptions.ParamValidationError | exceptions.InvalidRegionError):
            return StoreRefused("InvalidSettings", f"The storage settings can't be used: {detail}")
        return trouble(place, step, "ConnectionFailed", detail)

    @property
    def _host(self) -> str:
        return urlsplit(self._account.endpoint).netloc or f"the endpoint of {self._account.region}"
