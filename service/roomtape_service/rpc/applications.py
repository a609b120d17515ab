"""ApplicationService: the tenants and where their files go."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import application_pb2, application_pb2_grpc, error_pb2, storage_pb2
from roomtape_service.database import applications as application_rows
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.ids import Ids
from roomtape_service.rpc import validation
from roomtape_service.rpc.call import visible_applications
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.paging import read_page, write_token
from roomtape_service.storage.check import StorageCheck
from roomtape_service.storage.secrets import SecretBox, SecretKeyError, keep_secrets, strip_secrets
from roomtape_service.storage.settings import complete_settings, require_valid
from roomtape_service.storage.stores import Stores

__all__ = ["CHANGEABLE_PATHS", "ApplicationServicer"]

CHANGEABLE_PATHS = ("display_name", "service_state", "profile", "storage")


class ApplicationServicer(application_pb2_grpc.ApplicationServiceServicer):
    """See the contract for what each call does and refuses."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        secret_box: SecretBox,
        ids: Ids,
        on_changed: Callable[[], None] | None = None,
    ) -> None:
        """`on_changed` is called when an application was changed: files may wait for the store to be mended."""
        self._database = database
        self._on_changed = on_changed
        self._stores = stores
        self._check = StorageCheck(stores, ids)
        self._secret_box = secret_box

    async def CreateApplication(
        self, request: application_pb2.CreateApplicationRequest, context: Context
    ) -> application_pb2.CreateApplicationResponse:
        validation.refuse(
            validation.present(request.HasField("application"), "application", "the application to create")
        )
        wanted = request.application
        validation.refuse(*_check_fields(wanted), validation.request_id(request.request_id))
        storage = complete_settings(wanted.storage, wanted.app_id)
        require_valid(storage, "application.storage", self._stores.offer(wanted.app_id))
        record = ApplicationRecord(
            app_id=wanted.app_id,
            display_name=wanted.display_name,
            service_state=wanted.service_state or application_pb2.SERVICE_STATE_ENABLED,
            profile=wanted.profile or application_pb2.PROFILE_ROOMTAPE,
            storage=self._sealed(wanted.app_id, storage),
        )
        order = Order(
            wanted.app_id,
            request.request_id,
            "CreateApplication",
            request,
            application_pb2.CreateApplicationResponse,
        )

        async def work(uow: UnitOfWork) -> application_pb2.CreateApplicationResponse:
            if (earlier := await order.earlier_reply(uow)) is not None:
                return earlier
            stored = await application_rows.add(uow, record)
            return await order.keep(
                uow, application_pb2.CreateApplicationResponse(application=_application(stored))
            )

        return await self._database.write(work)

    async def GetApplication(
        self, request: application_pb2.GetApplicationRequest, context: Context
    ) -> application_pb2.GetApplicationResponse:
        validation.refuse(validation.app_id(request.app_id))
        record = await self._database.read(lambda rows: application_rows.get(rows, request.app_id))
        return application_pb2.GetApplicationResponse(application=_application(record))

    async def UpdateApplication(
        self, request: application_pb2.UpdateApplicationRequest, context: Context
    ) -> application_pb2.UpdateApplicationResponse:
        validation.refuse(
            validation.present(request.HasField("application"), "application", "the values to change")
        )
        wanted = request.application
        validation.refuse(
            *_check_fields(wanted),
            validation.update_mask(request.update_mask, CHANGEABLE_PATHS),
            validation.request_id(request.request_id),
        )
        paths = frozenset(request.update_mask.paths) or _paths_set(wanted)
        order = Order(
            wanted.app_id,
            request.request_id,
            "UpdateApplication",
            request,
            application_pb2.UpdateApplicationResponse,
        )

        async def work(uow: UnitOfWork) -> application_pb2.UpdateApplicationResponse:
            await uow.lock_application(wanted.app_id)
            if (earlier := await order.earlier_reply(uow)) is not None:
                return earlier
            stored = await application_rows.get(uow.connection, wanted.app_id)
            _require_etag(wanted, stored)
            changed = self._changed(stored, wanted, paths)
            if changed != stored:
                changed = await application_rows.change(uow, changed)
            return await order.keep(
                uow, application_pb2.UpdateApplicationResponse(application=_application(changed))
            )

        response = await self._database.write(work)
        if self._on_changed is not None:
            self._on_changed()
        return response

    async def ListApplications(
        self, request: application_pb2.ListApplicationsRequest, context: Context
    ) -> application_pb2.ListApplicationsResponse:
        size, place = read_page(request)
        after = str(place[0]) if place else ""
        visible = visible_applications()

        async def read(rows: AsyncConnection) -> Sequence[ApplicationRecord]:
            if visible is None:
                return await application_rows.page(rows, after, size + 1)
            found = [
                await application_rows.find(rows, app_id) for app_id in sorted(visible) if app_id > after
            ]
            return [record for record in found if record is not None]

        records = await self._database.read(read)
        more = len(records) > size
        return application_pb2.ListApplicationsResponse(
            applications=[_application(record) for record in records[:size]],
            next_page_token=write_token(request, (records[size - 1].app_id,)) if more else "",
        )

    async def CheckStorage(
        self, request: application_pb2.CheckStorageRequest, context: Context
    ) -> application_pb2.CheckStorageResponse:
        validation.refuse(validation.app_id(request.app_id))
        record = await self._database.read(lambda rows: application_rows.get(rows, request.app_id))
        if request.HasField("storage"):
            settings = self._wanted_storage(record, request.storage, "storage")
        else:
            try:
                settings = self._secret_box.open(record.app_id, _stored_storage(record))
            except SecretKeyError as error:
                failed = application_pb2.StorageCheckStep(
                    name="put", error_code="SecretKey", message=str(error)
                )
                return application_pb2.CheckStorageResponse(steps=[failed])
        return await self._check.check(settings, record.app_id)

    def _changed(
        self, stored: ApplicationRecord, wanted: application_pb2.Application, paths: frozenset[str]
    ) -> ApplicationRecord:
        changed = stored
        if "display_name" in paths:
            changed = replace(changed, display_name=wanted.display_name)
        if "service_state" in paths and wanted.service_state:
            changed = replace(changed, service_state=wanted.service_state)
        if "profile" in paths:
            changed = replace(changed, profile=wanted.profile or application_pb2.PROFILE_ROOMTAPE)
        if "storage" in paths:
            storage = self._wanted_storage(stored, wanted.storage, "application.storage")
            changed = replace(changed, storage=self._sealed(stored.app_id, storage))
        return changed

    def _wanted_storage(
        self, record: ApplicationRecord, wanted: storage_pb2.StorageSettings, field: str
    ) -> storage_pb2.StorageSettings:
        """Complete and valid settings, with stored secrets where the caller sent back what a reply showed."""
        try:
            stored = self._secret_box.open(record.app_id, _stored_storage(record))
        except SecretKeyError:
            # The way out of a lost key is to send the credentials again.
            stored = storage_pb2.StorageSettings()
        settings = keep_secrets(complete_settings(wanted, record.app_id), stored)
        require_valid(settings, field, self._stores.offer(record.app_id))
        return settings

    def _sealed(self, app_id: str, settings: storage_pb2.StorageSettings) -> bytes:
        return self._secret_box.seal(app_id, settings).SerializeToString()


def _check_fields(wanted: application_pb2.Application) -> Sequence[validation.Problem | None]:
    return (
        validation.app_id(wanted.app_id, "application.app_id"),
        validation.display_name(wanted.display_name, "application.display_name"),
        validation.enum(wanted.service_state, application_pb2.ServiceState, "application.service_state"),
        validation.enum(wanted.profile, application_pb2.Profile, "application.profile"),
    )


def _paths_set(wanted: application_pb2.Application) -> frozenset[str]:
    return frozenset(field.name for field, _ in wanted.ListFields()) & frozenset(CHANGEABLE_PATHS)


def _require_etag(wanted: application_pb2.Application, stored: ApplicationRecord) -> None:
    if wanted.etag and wanted.etag != _etag(stored):
        raise Refusal(
            error_pb2.ERROR_REASON_ETAG_MISMATCH,
            f"The application {stored.app_id!r} was changed since it was read; read it again.",
            metadata={"appId": stored.app_id, "etag": _etag(stored)},
        )


def _etag(record: ApplicationRecord) -> str:
    return f"r{record.revision}"


def _stored_storage(record: ApplicationRecord) -> storage_pb2.StorageSettings:
    return complete_settings(storage_pb2.StorageSettings.FromString(record.storage), record.app_id)


def _application(record: ApplicationRecord) -> application_pb2.Application:
    create_time, update_time = Timestamp(), Timestamp()
    create_time.FromNanoseconds(record.create_ns)
    update_time.FromNanoseconds(record.update_ns)
    return application_pb2.Application(
        app_id=record.app_id,
        display_name=record.display_name,
        service_state=record.service_state,
        profile=record.profile,
        storage=strip_secrets(_stored_storage(record)),
        create_time=create_time,
        update_time=update_time,
        etag=_etag(record),
    )
