"""ApplicationService: requests that are refused."""

from collections.abc import Sequence

from google.protobuf import field_mask_pb2

from roomtape.v1 import application_pb2, storage_pb2
from tests.integration.bad_input.cases import case

__all__ = ["CASES"]

_CREATE = "ApplicationService.CreateApplication"
_UPDATE = "ApplicationService.UpdateApplication"
_CHECK = "ApplicationService.CheckStorage"
_UNKNOWN = 99
_NOWHERE = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="../etc"))
_NO_VENDOR = storage_pb2.StorageSettings(object_store=storage_pb2.ObjectStore(bucket="b", region="r"))
_NO_SOURCE = storage_pb2.StorageSettings(
    object_store=storage_pb2.ObjectStore(
        vendor=storage_pb2.STORAGE_VENDOR_KODO,
        bucket="tapes",
        region="cn-east-1",
        credentials=storage_pb2.StorageCredentials(source="of-another"),
    )
)
_NO_KIND = storage_pb2.StorageSettings(custom=storage_pb2.CustomStore(kind="floppy"))
_TWICE = storage_pb2.StorageSettings(
    disk=storage_pb2.DiskStore(folder="one"),
    secondary=storage_pb2.SecondaryStore(disk=storage_pb2.DiskStore(folder="one")),
)


def _create(
    app_id: str = "new",
    *,
    name: str = "",
    profile: int = 0,
    storage: storage_pb2.StorageSettings | None = None,
    request_id: str = "",
) -> application_pb2.CreateApplicationRequest:
    return application_pb2.CreateApplicationRequest(
        application=application_pb2.Application(
            app_id=app_id,
            display_name=name,
            profile=application_pb2.Profile.ValueType(profile),
            storage=storage,
        ),
        request_id=request_id,
    )


def _update(
    app_id: str = "app",
    *,
    name: str = "",
    state: int = 0,
    storage: storage_pb2.StorageSettings | None = None,
    etag: str = "",
    paths: Sequence[str] = (),
) -> application_pb2.UpdateApplicationRequest:
    return application_pb2.UpdateApplicationRequest(
        application=application_pb2.Application(
            app_id=app_id,
            display_name=name,
            service_state=application_pb2.ServiceState.ValueType(state),
            storage=storage,
            etag=etag,
        ),
        update_mask=field_mask_pb2.FieldMask(paths=paths),
    )


CASES = (
    case(
        _CREATE,
        "nothing",
        lambda _: application_pb2.CreateApplicationRequest(),
        "FIELD_REQUIRED",
        "application",
    ),
    case(_CREATE, "no id", lambda _: _create(""), "FIELD_REQUIRED", "application.app_id"),
    case(_CREATE, "id with slash", lambda _: _create("a/b"), "INVALID_ID", "application.app_id"),
    case(_CREATE, "id with underscore", lambda _: _create("a_b"), "INVALID_ID", "application.app_id"),
    case(_CREATE, "over-long id", lambda _: _create("a" * 65), "INVALID_ID", "application.app_id"),
    case(_CREATE, "id with a control", lambda _: _create("a\n"), "INVALID_ID", "application.app_id"),
    case(
        _CREATE,
        "that is there",
        lambda _: _create("app"),
        "APPLICATION_EXISTS",
        metadata=lambda _: {"appId": "app"},
    ),
    case(
        _CREATE,
        "over-long name",
        lambda _: _create(name="n" * 257),
        "INVALID_VALUE",
        "application.display_name",
    ),
    case(
        _CREATE,
        "unknown profile",
        lambda _: _create(profile=_UNKNOWN),
        "INVALID_VALUE",
        "application.profile",
        metadata=lambda _: {"value": "99"},
    ),
    case(
        _CREATE,
        "folder that leaves the root",
        lambda _: _create(storage=_NOWHERE),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.disk.folder",
    ),
    case(
        _CREATE,
        "bucket without vendor",
        lambda _: _create(storage=_NO_VENDOR),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.object_store.vendor",
    ),
    case(
        _CREATE,
        "storage with another's credentials",
        lambda _: _create(storage=_NO_SOURCE),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.object_store.credentials.source",
    ),
    case(
        _CREATE,
        "storage of a kind that is not installed",
        lambda _: _create(storage=_NO_KIND),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.custom.kind",
    ),
    case(
        _CREATE,
        "a second store that is the first",
        lambda _: _create(storage=_TWICE),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.secondary.disk",
    ),
    case(
        _CREATE,
        "prefix with dots",
        lambda _: _create(
            storage=storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(), prefix="a/../../b")
        ),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.prefix",
    ),
    case(_CREATE, "over-long request id", lambda _: _create(request_id="r" * 37), "INVALID_ID", "request_id"),
    case(
        "ApplicationService.GetApplication",
        "unknown application",
        lambda _: application_pb2.GetApplicationRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    case(
        "ApplicationService.GetApplication",
        "no id",
        lambda _: application_pb2.GetApplicationRequest(),
        "FIELD_REQUIRED",
        "app_id",
    ),
    case(_UPDATE, "unknown application", lambda _: _update("nobody", name="x"), "APPLICATION_NOT_FOUND"),
    case(
        _UPDATE,
        "nothing",
        lambda _: application_pb2.UpdateApplicationRequest(),
        "FIELD_REQUIRED",
        "application",
    ),
    case(
        _UPDATE,
        "a path that can't be changed",
        lambda _: _update(name="x", paths=["app_id"]),
        "INVALID_UPDATE_MASK",
        "update_mask",
        metadata=lambda _: {"path": "'app_id'"},
    ),
    case(_UPDATE, "old etag", lambda _: _update(name="x", etag="r999"), "ETAG_MISMATCH"),
    case(
        _UPDATE,
        "unknown state",
        lambda _: _update(state=_UNKNOWN),
        "INVALID_VALUE",
        "application.service_state",
    ),
    case(
        _UPDATE,
        "folder that leaves the root",
        lambda _: _update(storage=_NOWHERE),
        "INVALID_STORAGE_SETTINGS",
        "application.storage.disk.folder",
    ),
    case(
        "ApplicationService.ListApplications",
        "a token that is none",
        lambda _: application_pb2.ListApplicationsRequest(page_token="x" * 5000),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
    case(
        "ApplicationService.ListApplications",
        "negative page",
        lambda _: application_pb2.ListApplicationsRequest(page_size=-(2**31)),
        "INVALID_VALUE",
        "page_size",
    ),
    case(
        _CHECK,
        "unknown application",
        lambda _: application_pb2.CheckStorageRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
    ),
    case(
        _CHECK,
        "folder that leaves the root",
        lambda _: application_pb2.CheckStorageRequest(app_id="app", storage=_NOWHERE),
        "INVALID_STORAGE_SETTINGS",
        "storage.disk.folder",
    ),
)
