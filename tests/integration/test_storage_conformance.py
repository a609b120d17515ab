"""The public suite for stores, on ours and on one that another distribution brings."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from roomtape.v1 import storage_pb2
from roomtape_service.ids import CountedIds
from roomtape_service.storage import conformance
from roomtape_service.storage.check import StorageCheck
from roomtape_service.storage.conformance import CHECKS, Check, NotConforming
from roomtape_service.storage.kinds import GROUP, StoreKinds, installed_kinds
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.settings import check_settings
from roomtape_service.storage.store import Store, StoredObject, StoreRefused
from roomtape_service.storage.stores import Stores
from tests.support.rclone import RcloneServer
from tests.support.stores import SECRET_KEY, disk_settings, make_stores, rclone_settings, weed_settings
from tests.support.weed import WeedServer

TAPES = Path(__file__).parent.parent / "support" / "tapes"

every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


@pytest.fixture
async def stores(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Stores]:
    stores = make_stores(tmp_path / "files", authority=rclone.authority)
    yield stores
    await stores.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "checks").mkdir()
    return made


Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs the distribution of tapes as pip would, with these entry points."""

    def install(entry_points: str) -> None:
        site = tmp_path / "site-packages"
        facts = site / "roomtape_tapes-1.0.dist-info"
        facts.mkdir(parents=True)
        shutil.copy(TAPES / "roomtape_tapes.py", site)
        shutil.copy(TAPES / "METADATA", facts)
        (facts / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(site)

    return install


@pytest.fixture
async def kinds(install: Install) -> AsyncIterator[StoreKinds]:
    install((TAPES / "entry_points.txt").read_text())
    kinds = installed_kinds()
    yield kinds
    await kinds.aclose()


@pytest.mark.parametrize("server", ["disk", "weed", "rclone"])
async def test_ours_conform(
    server: str, stores: Stores, weed: WeedServer, rclone: RcloneServer, folder: Path
) -> None:
    settings = {"disk": disk_settings(), "weed": weed_settings(weed), "rclone": rclone_settings(rclone)}
    store = stores.store(settings[server])

    async def run(name: str, check: Check) -> None:
        (folder / name).mkdir()
        try:
            await check(store, folder / name)
        except Exception as error:
            error.add_note(f"in {name}, on {server}")
            raise

    # None gets into the way of another.
    async with asyncio.TaskGroup() as group:
        for name, check in CHECKS.items():
            group.create_task(run(name, check))
    assert list(await store.list("conformance/")) == []
    assert list(await store.list_parts_begun("conformance/")) == []


@every_check
async def test_anothers_conforms(check: Check, kinds: StoreKinds, folder: Path) -> None:
    await check(kinds.store("tapes", {"shelf": "7"}, {"code": "1237"}), folder)


def _tapes(shelf: str = "7", code: str = "1237") -> storage_pb2.StorageSettings:
    settings = storage_pb2.StorageSettings()
    settings.custom.kind = "tapes"
    settings.custom.options["shelf"] = shelf
    settings.custom.secrets["code"].value = code
    return settings


async def test_anothers_store_is_set_checked_and_explained(kinds: StoreKinds, tmp_path: Path) -> None:
    stores = Stores(tmp_path, SecretBox(SECRET_KEY), kinds=kinds)
    offer = stores.offer("app")
    assert offer.kinds.names == ["tapes"]
    assert check_settings(_tapes(), offer=offer) == []
    found = check_settings(_tapes("", "12"), offer=offer)
    assert {violation.field for violation in found} == {
        "storage.custom.options[shelf]",
        "storage.custom.secrets[code].value",
    }
    check = StorageCheck(stores, CountedIds())
    assert (await check.check(_tapes())).ok
    response = await check.check(_tapes(code="12345"))
    (step,) = response.steps
    assert (step.ok, step.error_code) == (False, "WrongCode")
    assert "12345" not in step.message
    # Its place is known without its secret.
    sealed = SecretBox(SECRET_KEY).seal("app", _tapes())
    assert stores.store(sealed).identity == "tapes:7"
    await stores.aclose()


async def test_a_kind_that_was_removed(tmp_path: Path) -> None:
    stores = Stores(tmp_path, SecretBox(SECRET_KEY))
    with pytest.raises(StoreRefused) as caught:
        stores.store(_tapes())
    assert caught.value.code == "StoreKindMissing"
    response = await StorageCheck(stores, CountedIds()).check(_tapes())
    assert [(step.name, step.error_code) for step in response.steps] == [("put", "StoreKindMissing")]
    await stores.aclose()


@pytest.mark.parametrize(
    ("entry_point", "said"),
    [
        ("s3 = roomtape_tapes:Tapes", "store_kind_refused"),
        ("broken = roomtape_tapes:Missing", "store_kind_not_loaded"),
        ("nothing = no_such_module_of_tapes:Tapes", "store_kind_not_loaded"),
    ],
)
def test_a_kind_that_cannot_be_had(
    install: Install, entry_point: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(f"[{GROUP}]\n{entry_point}\n")
    assert installed_kinds().names == []
    assert said in capsys.readouterr().out


class _Wrapped:
    """A store that does everything as another does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class _Truncates(_Wrapped):
    async def read(self, key: str, start: int, length: int) -> bytes:
        return (await self._store.read(key, start, length))[:-1]


class _ListsTwice(_Wrapped):
    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> list[StoredObject]:
        return [*await self._store.list(prefix, after="", limit=limit)]


class _Forgets(_Wrapped):
    async def delete(self, key: str) -> None:
        """Keeps it."""


class _Shows(_Wrapped):
    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        await self._store.put_bytes(key, data, "audio/mpeg")
        return await self._store.put_part(key, upload_id, number, data)


@pytest.mark.parametrize(
    ("name", "fault", "says"),
    [
        ("put_and_read", _Truncates, "read gives other bytes"),
        ("list", _ListsTwice, "on two pages|pages of 1"),
        ("missing_object", _Forgets, "head of what is not there works"),
        ("parts_in_any_order", _Shows, "is not complete works"),
    ],
)
async def test_what_does_not_conform_is_found(
    name: str, fault: type[_Wrapped], says: str, stores: Stores, folder: Path
) -> None:
    store = fault(stores.store(disk_settings("faulty")))
    with pytest.raises(NotConforming, match=says):
        await CHECKS[name](store, folder)  # type: ignore[arg-type]


def test_the_suite_is_whole() -> None:
    written = re.findall(r"^async def check_(\w+)\(", Path(conformance.__file__).read_text(), re.MULTILINE)
    assert list(CHECKS) == written
    assert all(check.__doc__ for check in CHECKS.values())
