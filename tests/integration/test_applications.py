"""ApplicationService over a real channel, on both databases."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import application_pb2, application_pb2_grpc, storage_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database
from roomtape_service.database.tables import applications, requests
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.applications import ApplicationServicer
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import parse
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.stores import Stores
from tests.support.databases import APP, clock, database, database_url, postgres

__all__ = ["clock", "database", "database_url", "postgres"]

KEY = "a-key-of-two"
SECRET = "hunter2hunter2"


@dataclass
class Service:
    """A running ApplicationService, with one key for everything and one for two applications."""

    stub: "application_pb2_grpc.ApplicationServiceAsyncStub"
    database: Database
    secret_box: SecretBox
    root: Path

    async def create(
        self, app_id: str, request_id: str = "", **fields: object
    ) -> application_pb2.Application:
        application = application_pb2.Application(app_id=app_id, **fields)  # type: ignore[arg-type]
        request = application_pb2.CreateApplicationRequest(application=application, request_id=request_id)
        return (await self.stub.CreateApplication(request)).application

    async def get(self, app_id: str) -> application_pb2.Application:
        request = application_pb2.GetApplicationRequest(app_id=app_id)
        return (await self.stub.GetApplication(request)).application

    async def update(
        self, application: application_pb2.Application, *paths: str, request_id: str = ""
    ) -> application_pb2.Application:
        request = application_pb2.UpdateApplicationRequest(
            application=application,
            update_mask=FieldMask(paths=paths) if paths else None,
            request_id=request_id,
        )
        return (await self.stub.UpdateApplication(request)).application

    async def list_ids(self, page_size: int, key: str = "") -> list[list[str]]:
        """The ids page by page."""
        metadata = (("authorization", f"Bearer {key}"),) if key else None
        pages, token = [], ""
        while True:
            request = application_pb2.ListApplicationsRequest(page_size=page_size, page_token=token)
            response = await self.stub.ListApplications(request, metadata=metadata)
            pages.append([application.app_id for application in response.applications])
            token = response.next_page_token
            if not token:
                return pages

    async def stored_bytes(self) -> bytes:
        """Everything that could hold a secret."""

        async def read(rows: AsyncConnection) -> bytes:
            found = [*await rows.scalars(select(applications.c.storage))]
            found += [*await rows.scalars(select(requests.c.response))]
            return b"".join(map(bytes, found))

        return await self.database.read(read)


def object_store(secret: str = SECRET, **fields: object) -> storage_pb2.StorageSettings:
    store = storage_pb2.ObjectStore(
        vendor=storage_pb2.STORAGE_VENDOR_S3,
        bucket="a-bucket",
        region="us-east-1",
        credentials=storage_pb2.StorageCredentials(
            access_key_id="AKIA", secret_access_key=storage_pb2.Secret(value=secret)
        ),
    )
    return storage_pb2.StorageSettings(object_store=store, **fields)  # type: ignore[arg-type]


def refusal(error: aio.AioRpcError) -> tuple[str, list[str]]:
    """The reason, and the fields at fault."""
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return info.reason, [violation.field for violation in bad.field_violations]


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, list[str]]:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return (caught.value.code(), *refusal(caught.value))


async def serve(database: Database, folder: Path, clock: ManualClock, keys: str) -> tuple[RpcServer, Service]:
    secret_box = SecretBox(bytes(32))
    servicer = ApplicationServicer(database, Stores(folder / "files", secret_box), secret_box, CountedIds())
    values: dict[str, object] = {
        "data_dir": str(folder),
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
    }
    if keys:
        values["api_keys"] = keys
    server = RpcServer(
        parse(values),
        [partial(application_pb2_grpc.add_ApplicationServiceServicer_to_server, servicer)],
        [],
        clock,
        CountedIds(),
    )
    await server.start()
    channel = aio.insecure_channel(f"127.0.0.1:{server.port}")
    stub = application_pb2_grpc.ApplicationServiceStub(channel)
    return server, Service(stub, database, secret_box, folder / "files")


@pytest.fixture
async def service(database: Database, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Service]:
    server, running = await serve(database, tmp_path, clock, "")
    yield running
    await server.aclose()


async def test_what_is_created_has_defaults_and_can_be_read(service: Service, clock: ManualClock) -> None:
    created = await service.create("My-App.2", display_name="Mine")
    assert created.service_state == application_pb2.SERVICE_STATE_ENABLED
    assert created.profile == application_pb2.PROFILE_ROOMTAPE
    assert created.storage.disk.folder == "My-App.2"
    assert created.create_time.ToNanoseconds() == created.update_time.ToNanoseconds() == clock.now_ns()
    assert created.etag
    assert await service.get("My-App.2") == created
    assert await refused(service.create("My-App.2")) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "APPLICATION_EXISTS",
        [],
    )
    assert await refused(service.get("nope")) == (grpc.StatusCode.NOT_FOUND, "APPLICATION_NOT_FOUND", [])


async def test_every_field_at_fault_is_named(service: Service) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    empty = service.stub.CreateApplication(application_pb2.CreateApplicationRequest())
    assert await refused(empty) == (invalid, "FIELD_REQUIRED", ["application"])
    assert await refused(service.create("")) == (invalid, "FIELD_REQUIRED", ["application.app_id"])
    assert await refused(service.create("a/b", service_state=9, profile=9, display_name="x" * 257)) == (
        invalid,
        "INVALID_ID",
        [
            "application.app_id",
            "application.display_name",
            "application.service_state",
            "application.profile",
        ],
    )
    assert await refused(service.create("a", request_id="x" * 37)) == (invalid, "INVALID_ID", ["request_id"])
    bad_storage = storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(vendor=storage_pb2.STORAGE_VENDOR_S3), prefix="/x"
    )
    code, reason, fields = await refused(service.create("a", storage=bad_storage))
    assert (code, reason) == (invalid, "INVALID_STORAGE_SETTINGS")
    assert "application.storage.prefix" in fields
    assert "application.storage.object_store.bucket" in fields
    assert await refused(service.get("a")) == (grpc.StatusCode.NOT_FOUND, "APPLICATION_NOT_FOUND", [])


async def test_a_request_sent_again_gets_the_same_answer(service: Service, clock: ManualClock) -> None:
    created = await service.create("a", "r-1")
    clock.advance(60)
    assert await service.create("a", "r-1") == created
    assert await refused(service.create("a", "r-1", display_name="other")) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
        [],
    )
    changed = await service.update(
        application_pb2.Application(app_id="a", display_name="A"), request_id="r-2"
    )
    await service.update(application_pb2.Application(app_id="a", display_name="B"))
    again = await service.update(application_pb2.Application(app_id="a", display_name="A"), request_id="r-2")
    assert again == changed
    assert (await service.get("a")).display_name == "B"


async def test_secrets_are_never_sent_back_or_stored_in_clear(service: Service) -> None:
    created = await service.create("a", "r-1", storage=object_store(prefix="x/y"))
    secret = created.storage.object_store.credentials.secret_access_key
    assert secret == storage_pb2.Secret(is_set=True)
    assert not created.storage.object_store.credentials.session_token.is_set
    for reply in (
        await service.get("a"),
        await service.create("a", "r-1", storage=object_store(prefix="x/y")),
    ):
        assert SECRET not in str(reply)
    assert SECRET.encode() not in await service.stored_bytes()


async def open_storage(service: Service, app_id: str) -> storage_pb2.StorageSettings:
    async def read(rows: AsyncConnection) -> bytes:
        query = select(applications.c.storage).where(applications.c.app_id == app_id)
        return bytes((await rows.scalars(query)).one())

    sealed = storage_pb2.StorageSettings.FromString(await service.database.read(read))
    return service.secret_box.open(app_id, sealed)


async def test_what_a_reply_showed_may_be_sent_back_and_keeps_the_secret(service: Service) -> None:
    shown = await service.create("a", storage=object_store())
    shown.display_name = "changed"
    changed = await service.update(shown)
    assert changed.display_name == "changed"
    stored = await open_storage(service, "a")
    assert stored.object_store.credentials.secret_access_key.value == SECRET

    other_account = await service.get("a")
    other_account.storage.object_store.credentials.access_key_id = "AKIB"
    _, reason, fields = await refused(service.update(other_account))
    assert reason == "INVALID_STORAGE_SETTINGS"
    assert fields == ["application.storage.object_store.credentials.secret_access_key.value"]


async def test_a_mask_says_what_changes(service: Service, clock: ManualClock) -> None:
    first = await service.create(
        "a", display_name="A", profile=application_pb2.PROFILE_GME, storage=object_store()
    )
    clock.advance(5)
    nothing = await service.update(application_pb2.Application(app_id="a"))
    assert nothing == first

    disabled = application_pb2.Application(app_id="a", service_state=application_pb2.SERVICE_STATE_DISABLED)
    second = await service.update(disabled)
    assert second.service_state == application_pb2.SERVICE_STATE_DISABLED
    assert (second.display_name, second.profile, second.storage) == (
        first.display_name,
        first.profile,
        first.storage,
    )
    assert second.etag != first.etag
    assert second.update_time.seconds == first.update_time.seconds + 5
    assert second.create_time == first.create_time

    bare = application_pb2.Application(app_id="a", display_name="ignored")
    third = await service.update(bare, "profile", "storage", "service_state")
    assert third.display_name == "A"
    assert third.profile == application_pb2.PROFILE_ROOMTAPE
    assert third.storage.disk.folder == "a"
    assert third.service_state == application_pb2.SERVICE_STATE_DISABLED
    assert (await service.update(application_pb2.Application(app_id="a"), "display_name")).display_name == ""

    for path in ("app_id", "create_time", "etag", "storage.disk", "*", "nope"):
        assert await refused(service.update(bare, "profile", path)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_UPDATE_MASK",
            ["update_mask"],
        )


async def test_an_etag_that_is_not_the_current_one_changes_nothing(service: Service) -> None:
    first = await service.create("a", display_name="A")
    first.display_name = "B"
    second = await service.update(first)
    first.display_name = "C"
    assert await refused(service.update(first)) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", [])
    second.display_name = "C"
    assert (await service.update(second)).display_name == "C"
    missing = application_pb2.Application(app_id="nope", display_name="x")
    assert await refused(service.update(missing)) == (
        grpc.StatusCode.NOT_FOUND,
        "APPLICATION_NOT_FOUND",
        [],
    )


async def test_updates_at_once_lose_nothing(service: Service) -> None:
    await service.create("a")
    names = application_pb2.Application(app_id="a", display_name="A")
    profiles = application_pb2.Application(app_id="a", profile=application_pb2.PROFILE_GME)
    states = application_pb2.Application(app_id="a", service_state=application_pb2.SERVICE_STATE_DISABLED)
    await asyncio.gather(*(service.update(change) for change in (names, profiles, states)))
    changed = await service.get("a")
    assert (changed.display_name, changed.profile, changed.service_state) == (
        "A",
        application_pb2.PROFILE_GME,
        application_pb2.SERVICE_STATE_DISABLED,
    )


async def test_lists_come_in_pages_by_id(service: Service) -> None:
    for app_id in ("c", "b", "a"):
        await service.create(app_id)
    assert APP == "app"
    assert await service.list_ids(2) == [["a", "app"], ["b", "c"]]
    assert await service.list_ids(3) == [["a", "app", "b"], ["c"]]
    assert await service.list_ids(4) == [["a", "app", "b", "c"]]
    request = application_pb2.ListApplicationsRequest(page_token="nonsense")
    assert await refused(service.stub.ListApplications(request)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
        ["page_token"],
    )


async def test_a_key_sees_its_own_applications_only(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    server, service = await serve(database, tmp_path, clock, "")
    for app_id in ("a", "b", "c"):
        await service.create(app_id)
    await server.aclose()
    keys = f"{hashlib.sha256(KEY.encode()).hexdigest()}=c,a,gone"
    server, service = await serve(database, tmp_path, clock, keys)
    try:
        assert await service.list_ids(1, KEY) == [["a"], ["c"]]
        assert await service.list_ids(2, KEY) == [["a", "c"]]
    finally:
        await server.aclose()


async def test_the_disk_store_of_an_application_works(service: Service) -> None:
    await service.create("a")
    request = application_pb2.CheckStorageRequest(app_id="a")
    response = await service.stub.CheckStorage(request)
    assert response.ok
    assert [step.name for step in response.steps] == ["put", "head", "read", "list", "multipart", "delete"]
    assert not [path for path in service.root.rglob("*") if path.is_file()]
    assert await refused(service.stub.CheckStorage(application_pb2.CheckStorageRequest(app_id="nope"))) == (
        grpc.StatusCode.NOT_FOUND,
        "APPLICATION_NOT_FOUND",
        [],
    )


async def test_storage_settings_can_be_tried_without_being_stored(service: Service) -> None:
    created = await service.create("a")
    tried = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="other"))
    response = await service.stub.CheckStorage(application_pb2.CheckStorageRequest(app_id="a", storage=tried))
    assert response.ok
    assert await service.get("a") == created
    bad = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="../other"))
    call = service.stub.CheckStorage(application_pb2.CheckStorageRequest(app_id="a", storage=bad))
    assert await refused(call) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_STORAGE_SETTINGS",
        ["storage.disk.folder"],
    )


async def test_credentials_whose_key_is_lost_are_a_result_and_can_be_sent_again(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    server, service = await serve(database, tmp_path, clock, "")
    try:
        await service.create("a", storage=object_store())
        service.secret_box._cipher = SecretBox(b"x" * 32)._cipher
        checked = await service.stub.CheckStorage(application_pb2.CheckStorageRequest(app_id="a"))
        assert not checked.ok
        assert checked.steps[0].error_code == "SecretKey"
        again = application_pb2.Application(app_id="a", storage=object_store("another-secret"))
        await service.update(again)
        stored = await open_storage(service, "a")
        assert stored.object_store.credentials.secret_access_key.value == "another-secret"
    finally:
        await server.aclose()
