"""The disk as a store: nothing leaves the folder, nothing is half there."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from roomtape_service.storage.disk import DiskStore
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.store import ObjectMissing, StoreError, StoreRefused
from roomtape_service.storage.stores import Stores

DATA = b"a few bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()
DAY_SECONDS = 24 * 3600


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        "../a",
        "a/../../b",
        "a/./b",
        ".",
        "a\0b",
        "a/" + "b" * 256,
        ".parts/a",
    ],
)
async def test_keys_that_are_no_path_below_are_refused(tmp_path: Path, source: Path, key: str) -> None:
    store = DiskStore(tmp_path / "files", "app")
    for call in (
        store.put(key, source, SHA256, "audio/mpeg"),
        store.head(key),
        store.read(key, 0, 1),
        store.delete(key),
    ):
        with pytest.raises(StoreRefused):
            await call
    assert _files(tmp_path) == ["source"]


async def test_a_put_that_fails_leaves_nothing(tmp_path: Path, source: Path) -> None:
    store = DiskStore(tmp_path / "files", "app")
    (tmp_path / "files" / "app" / "taken" / "below").mkdir(parents=True)
    with pytest.raises(StoreError):
        await store.put("taken", source, SHA256, "audio/mpeg")
    with pytest.raises(ObjectMissing):
        await store.read("taken", 0, 1)
    assert _files(tmp_path) == ["source"]


async def test_deleting_takes_empty_folders_away(tmp_path: Path, source: Path) -> None:
    store = DiskStore(tmp_path / "files", "app")
    for key in ("a/b/c", "a/d"):
        await store.put(key, source, SHA256, "audio/mpeg")
    await store.delete("a/b/c")
    assert not (tmp_path / "files" / "app" / "a" / "b").exists()
    await store.delete("a/d")
    assert not (tmp_path / "files" / "app" / "a").exists()
    assert (tmp_path / "files" / "app").is_dir()


async def test_what_a_crash_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    parts = tmp_path / "files" / "app" / ".parts"
    parts.mkdir(parents=True)
    now = time.time()
    for name, age in (("old", DAY_SECONDS + 60), ("young", DAY_SECONDS - 60)):
        (parts / name).write_bytes(DATA)
        os.utime(parts / name, (now - age, now - age))
    stores = Stores(tmp_path / "files", SecretBox(bytes(32)))
    await stores.remove_stale_parts(round(now * 1e9))
    assert _files(parts) == ["young"]
    await Stores(tmp_path / "none", SecretBox(bytes(32))).remove_stale_parts(0)


async def test_what_a_power_cut_left_of_an_upload_goes_after_a_day(tmp_path: Path) -> None:
    """What says whose the bytes are was not synced; what is whole goes on, however old it is."""
    store = DiskStore(tmp_path / "files", "app")
    parts = tmp_path / "files" / "app" / ".parts"
    torn, whole = [await store.begin_parts(key, "audio/wav") for key in ("torn", "whole")]
    os.truncate(parts / f"{torn}.key", 0)
    now = time.time()
    for path in parts.iterdir():
        os.utime(path, (now - DAY_SECONDS - 60, now - DAY_SECONDS - 60))
    await store.remove_stale_parts(now)
    assert _files(parts) == sorted([whole, f"{whole}.key"])


def test_urls_are_of_the_file(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "files", "app")
    key = "app_room/1_a~F0.mp3"
    assert store.url(key) == (tmp_path / "files" / "app" / key).as_uri()
    assert store.identity == "disk:app"
