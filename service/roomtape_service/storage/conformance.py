"""What every store must do, as checks that its author runs.

Each check is called with a store that may keep what is below the prefix `conformance/`, and with an empty folder. It
leaves nothing behind, and raises NotConforming, or the StoreError that it did not expect. With pytest:

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
    async def test_the_store_conforms(check: Check, my_store: Store, tmp_path: Path) -> None:
        await check(my_store, tmp_path)

Checks send up to two parts of 5 MiB and a small one; the slowest take a second on a store that is near.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from roomtape_service.storage.store import (
    ObjectMissing,
    PartsMissing,
    SourceDamaged,
    Store,
    StoredObject,
    StoreError,
)

__all__ = ["CHECKS", "Check", "NotConforming"]

Check: TypeAlias = Callable[[Store, Path], Awaitable[None]]

_TYPE = "audio/mpeg"
_SMALL_BYTES = 10_000
# What every vendor takes.
_PART_BYTES = 5 << 20
_CANCELLED_BYTES = 1 << 20
_MAX_IDENTITY_CHARACTERS = 255
_MAX_TAG_CHARACTERS = 256
# What recordings are called, and what else a key may be.
_KEYS = (
    "app_room_user/2023-02-09-16-16-45_0_audio.mp3",
    "pre.fix/a-b/app_r~5F~F0~9F~8E~99_u~2F/1_2023-02-09-16-16-45_0_audio-2.wav",
    "päth/🎙 with spaces/&?#%+=,;:@!$'()*[]~/ÿ.ogg",
    "deep/" + "/".join("abcdefgh") + "/x",
)


class NotConforming(AssertionError):
    """The store does something else than `Store` promises."""


async def check_identity(store: Store, folder: Path) -> None:
    """It is the same each time, fits where it is kept, and URLs are those of their objects."""
    _require(0 < len(store.identity) <= _MAX_IDENTITY_CHARACTERS, "the identity is empty or too long")
    _require(":" in store.identity, "the identity does not start with its kind and a colon")
    _require(store.identity == store.identity, "the identity changes")
    urls = {store.url(f"conformance/{name}") for name in ("a", "b")}
    _require(len(urls) == 2 and all("://" in url for url in urls), "two keys have one URL, or what is none")


async def check_put_and_read(store: Store, folder: Path) -> None:
    """What was put is there, under any key."""
    for name in _KEYS:
        key = _key(name)
        data = _data(_SMALL_BYTES)
        stored = await _put(store, folder, key, data)
        _require(stored.key == key, f"put answers for {stored.key!r}, not for {key!r}")
        _require((await store.head(key)).size_bytes == len(data), f"head tells another size of {key!r}")
        _require(await store.read(key, 0, len(data)) == data, f"read gives other bytes of {key!r}")
        await store.delete(key)


async def check_put_bytes(store: Store, folder: Path) -> None:
    """Small objects out of memory are as those of files."""
    key, data = _key(), _data(_SMALL_BYTES)
    stored = await store.put_bytes(key, data, _TYPE)
    _require(stored.size_bytes == len(data), "put_bytes tells another size")
    _require(await store.read(key, 0, len(data)) == data, "read gives other bytes")
    await store.delete(key)


async def check_empty_object(store: Store, folder: Path) -> None:
    """An object of nothing is an object."""
    key = _key()
    stored = await _put(store, folder, key, b"")
    _require(stored.size_bytes == 0, "an empty object has a size")
    _require((await store.head(key)).size_bytes == 0, "head tells a size of an empty object")
    await store.delete(key)


async def check_put_replaces(store: Store, folder: Path) -> None:
    """A second put takes the place of the first, also when it is shorter."""
    key = _key()
    for size_bytes in (_SMALL_BYTES, 100):
        data = _data(size_bytes)
        await _put(store, folder, key, data)
        _require(await store.read(key, 0, _SMALL_BYTES) == data, "read gives what was there before")
        _require((await store.head(key)).size_bytes == size_bytes, "head tells what was there before")
    await store.delete(key)


async def check_ranges(store: Store, folder: Path) -> None:
    """Any range can be read; past the end there is less, or nothing."""
    key, data = _key(), _data(_SMALL_BYTES)
    await _put(store, folder, key, data)
    size = len(data)
    for start, length in ((0, 1), (10, 5), (size - 1, 1), (size - 10, 100), (0, 2 * size)):
        found = await store.read(key, start, length)
        _require(found == data[start : start + length], f"read gives other bytes from {start} for {length}")
    for start in (size, size + 1000):
        _require(await store.read(key, start, 10) == b"", f"read gives bytes from {start} of {size}")
    await store.delete(key)


async def check_missing_object(store: Store, folder: Path) -> None:
    """What is not there is ObjectMissing, and may be deleted."""
    for key in (_key(), _key("deleted")):
        if key.endswith("deleted"):
            await _put(store, folder, key, b"x")
            await store.delete(key)
        await store.delete(key)
        await _fails(ObjectMissing, store.head(key), "head of what is not there")
        await _fails(ObjectMissing, store.read(key, 0, 1), "read of what is not there")


async def check_damaged_source(store: Store, folder: Path) -> None:
    """A file that is gone, or not what was recorded, is not stored and is not the store's fault."""
    key, source = _key(), folder / "source"
    sha256 = hashlib.sha256(b"another").hexdigest()
    await _fails(SourceDamaged, store.put(key, source, sha256, _TYPE), "put of a file that is gone")
    source.write_bytes(_data(_SMALL_BYTES))
    await _fails(SourceDamaged, store.put(key, source, sha256, _TYPE), "put of a file with another SHA-256")
    await _fails(ObjectMissing, store.head(key), "head of what must not have been stored")


async def check_list(store: Store, folder: Path) -> None:
    """Objects are listed by the start of their keys, page by page, each once."""
    base = _key()
    names = ["a", "a/b", "a/c", "ab", "b-1", "b.1", "b/1/2/3", "~"]
    # A folder and a file of one name are one and the same to many stores.
    keys = {f"{base}/{name}" for name in names if name != "a"}
    for key in keys:
        await store.put_bytes(key, key.encode(), _TYPE)
    other = f"{base}-other"
    await store.put_bytes(other, b"x", _TYPE)
    whole = await store.list(f"{base}/")
    _require({stored.key for stored in whole} == keys and len(whole) == len(keys), "list gives other keys")
    _require(all(s.size_bytes == len(s.key.encode()) for s in whole), "list tells other sizes")
    for limit in (1, 3, len(keys)):
        paged: list[StoredObject] = []
        while page := await store.list(f"{base}/", after=paged[-1].key if paged else "", limit=limit):
            _require(len(page) <= limit, f"list gives {len(page)} objects for {limit}")
            paged += page
            _require(len(paged) <= len(keys), "list gives an object on two pages")
            if len(page) < limit:
                break
        _require(paged == [*whole], f"pages of {limit} are not what one page is")
    within = await store.list(f"{base}/a/")
    _require({s.key for s in within} == {f"{base}/a/b", f"{base}/a/c"}, "list gives other keys of a folder")
    _require(not await store.list(f"{base}/none/"), "list gives keys of a folder that is not there")
    for key in (*keys, other):
        await store.delete(key)
    _require(not await store.list(f"{base}/"), "list gives keys that were deleted")


async def check_parts_in_any_order(store: Store, folder: Path) -> None:
    """Parts that come as 2, 3, 1 are put together as 1, 2, 3; nothing is seen before that."""
    key = _key()
    parts = [_data(_PART_BYTES), _data(_PART_BYTES), _data(7)]
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    tags: dict[int, str] = {}
    for number in (2, 3, 1):
        tags[number] = await store.put_part(key, upload_id, number, parts[number - 1])
        _require(1 <= len(tags[number]) <= _MAX_TAG_CHARACTERS, "a part's tag is empty or too long")
        await _fails(ObjectMissing, store.head(key), "head of an object that is not complete")
    _require(not await store.list(key), "list gives an object that is not complete")
    await _complete(store, key, upload_id, tags, parts)
    await store.delete(key)


async def check_one_part(store: Store, folder: Path) -> None:
    """A multipart upload may have a single part, of any size."""
    key, parts = _key(), [_data(10)]
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    tags = {1: await store.put_part(key, upload_id, 1, parts[0])}
    await _complete(store, key, upload_id, tags, parts)
    await store.delete(key)


async def check_part_again(store: Store, folder: Path) -> None:
    """The same part number again takes the place of what came before, or the upload is as good as gone."""
    key = _key()
    parts = [_data(_PART_BYTES), _data(7)]
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    await store.put_part(key, upload_id, 1, _data(_PART_BYTES))
    tags = {2: await store.put_part(key, upload_id, 2, parts[1])}
    try:
        tags[1] = await store.put_part(key, upload_id, 1, parts[0])
    except PartsMissing:
        # It replaces none; who needs to begins anew.
        await store.abort_parts(key, upload_id)
        return
    await _complete(store, key, upload_id, tags, parts)
    await store.delete(key)


async def check_parts_replace(store: Store, folder: Path) -> None:
    """An upload in parts takes the place of the object, which is there until then."""
    key, parts = _key(), [_data(_PART_BYTES), _data(7)]
    await store.put_bytes(key, b"before", _TYPE)
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    tags = {
        number: await store.put_part(key, upload_id, number, part) for number, part in enumerate(parts, 1)
    }
    _require(await store.read(key, 0, 10) == b"before", "an object changes before its new parts are complete")
    await _complete(store, key, upload_id, tags, parts)
    await store.delete(key)


async def check_complete_again(store: Store, folder: Path) -> None:
    """Who lost the answer may complete once more, and hears of the object."""
    key, parts = _key(), [_data(_PART_BYTES), _data(7)]
    size_bytes = sum(map(len, parts))
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    tags = {
        number: await store.put_part(key, upload_id, number, part) for number, part in enumerate(parts, 1)
    }
    await _complete(store, key, upload_id, tags, parts)
    again = await store.complete_parts(key, upload_id, tags, size_bytes)
    _require(again.size_bytes == size_bytes, "completing again tells another size")
    await store.delete(key)
    await _fails(
        PartsMissing, store.complete_parts(key, upload_id, tags, size_bytes), "completing what was deleted"
    )


async def check_unknown_upload(store: Store, folder: Path) -> None:
    """Parts of an upload that is not there are PartsMissing."""
    key = _key()
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    tag = await store.put_part(key, upload_id, 1, b"x")
    await store.abort_parts(key, upload_id)
    await _fails(PartsMissing, store.put_part(key, upload_id, 2, b"x"), "a part of an aborted upload")
    await _fails(
        PartsMissing, store.complete_parts(key, upload_id, {1: tag}, 1), "completing an aborted upload"
    )
    await _fails(ObjectMissing, store.head(key), "head of an aborted upload")


async def check_abort(store: Store, folder: Path) -> None:
    """An aborted upload leaves nothing; aborting again, and what is not there, does nothing."""
    key = _key()
    for with_part in (False, True):
        upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
        if with_part:
            await store.put_part(key, upload_id, 1, _data(10))
        await store.abort_parts(key, upload_id)
        await store.abort_parts(key, upload_id)
    left = await store.list_parts_begun(key)
    _require(not left, "an aborted upload is still listed")
    _require(not await store.list(key), "an aborted upload left an object")


async def check_begun_are_listed(store: Store, folder: Path) -> None:
    """Uploads that were begun and left can be found by the start of their keys."""
    base = _key()
    begun = {f"{base}/{name}": await store.begin_parts(f"{base}/{name}", _TYPE) for name in ("a", "b")}
    for key, upload_id in begun.items():
        # Some stores know of an upload from its first part on.
        await store.put_part(key, upload_id, 1, b"x")
    found = {parts.key: parts.upload_id for parts in await store.list_parts_begun(f"{base}/")}
    _require(found == begun, f"{len(begun)} uploads were begun, {len(found)} are listed or have other ids")
    _require(not await store.list_parts_begun(f"{base}/c"), "uploads are listed under another key")
    for key, upload_id in begun.items():
        await store.abort_parts(key, upload_id)
    _require(not await store.list_parts_begun(f"{base}/"), "aborted uploads are listed")


async def check_many_at_once(store: Store, folder: Path) -> None:
    """Many calls at once are as many calls."""
    base = _key()
    content = {f"{base}/{number}": _data(100 + number) for number in range(16)}
    async with asyncio.TaskGroup() as group:
        for key, data in content.items():
            group.create_task(store.put_bytes(key, data, _TYPE))
    found = await asyncio.gather(*(store.read(key, 0, _SMALL_BYTES) for key in content))
    _require(found == list(content.values()), "objects that were put at once are mixed up")
    async with asyncio.TaskGroup() as group:
        for key in content:
            group.create_task(store.delete(key))


async def check_one_key_at_once(store: Store, folder: Path) -> None:
    """Of puts under one key at once, one is there, whole."""
    key, contents = _key(), [_data(200_000) for _ in range(4)]
    # Some stores refuse or replace one that is overtaken; uploads try such a one again.
    ended = await asyncio.gather(
        *(store.put_bytes(key, data, _TYPE) for data in contents), return_exceptions=True
    )
    unexpected = [
        each for each in ended if isinstance(each, BaseException) and not isinstance(each, StoreError)
    ]
    if unexpected:
        raise unexpected[0]
    _require(await store.read(key, 0, 300_000) in contents, "what is there was put by nobody")
    await store.delete(key)


async def check_parts_at_once(store: Store, folder: Path) -> None:
    """Parts of one upload may come at once."""
    key, parts = _key(), [_data(_PART_BYTES), _data(_PART_BYTES), _data(7)]
    upload_id = await store.begin_parts(key, _TYPE, part_bytes=_PART_BYTES)
    async with asyncio.TaskGroup() as group:
        sent = {
            number: group.create_task(store.put_part(key, upload_id, number, part))
            for number, part in enumerate(parts, 1)
        }
    await _complete(store, key, upload_id, {number: task.result() for number, task in sent.items()}, parts)
    await store.delete(key)


async def check_cancellation(store: Store, folder: Path) -> None:
    """A put that is cancelled leaves nothing or the whole object, and a store that goes on working."""
    key, data = _key(), _data(_CANCELLED_BYTES)
    source = folder / "source"
    source.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    for turns in (0, 1, 3, 10, 30):
        task = asyncio.create_task(store.put(key, source, sha256, _TYPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(ObjectMissing):
            _require(await store.read(key, 0, len(data)) == data, "a put that was cancelled left half of it")
    _require(
        (await store.put(key, source, sha256, _TYPE)).size_bytes == len(data),
        "the next put tells another size",
    )
    await store.delete(key)


async def check_playback_url(store: Store, folder: Path) -> None:
    """An object has a URL to play it, or the server plays it."""
    key = _key()
    await store.put_bytes(key, b"x", _TYPE)
    headers = {"Content-Type": _TYPE, "Content-Disposition": 'inline; filename="a.mp3"'}
    url = await store.playback_url(key, 60, headers)
    _require(url is None or url.startswith(("http://", "https://")), "a playback URL is none of HTTP")
    await store.delete(key)


CHECKS: Mapping[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in globals().copy().items()
    if name.startswith("check_") and asyncio.iscoroutinefunction(check)
}
"""All checks by name."""


def _require(is_so: bool, problem: str) -> None:
    if not is_so:
        raise NotConforming(problem)


async def _fails(kind: type[StoreError], call: Awaitable[object], what: str) -> None:
    try:
        await call
    except kind:
        return
    except StoreError as error:
        raise NotConforming(f"{what} is {type(error).__name__} {error.code}, not {kind.__name__}") from error
    raise NotConforming(f"{what} works, and should be {kind.__name__}")


async def _put(store: Store, folder: Path, key: str, data: bytes) -> StoredObject:
    source = folder / "source"
    source.write_bytes(data)
    return await store.put(key, source, hashlib.sha256(data).hexdigest(), _TYPE)


async def _complete(
    store: Store, key: str, upload_id: str, tags: Mapping[int, str], parts: Sequence[bytes]
) -> None:
    whole = b"".join(parts)
    stored = await store.complete_parts(key, upload_id, tags, len(whole))
    _require(stored.size_bytes == len(whole), "completing tells another size")
    found = await store.read(key, 0, len(whole) + 1)
    _require(found == whole, "the parts are not put together as they are numbered")


def _key(name: str = "object") -> str:
    return f"conformance/{secrets.token_hex(8)}/{name}"


def _data(size_bytes: int) -> bytes:
    return secrets.token_bytes(size_bytes)
