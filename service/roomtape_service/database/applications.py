"""Applications as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import application_pb2, error_pb2
from roomtape_service.database.tables import applications
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal

__all__ = ["ApplicationRecord", "add", "all_ids", "change", "find", "get", "page"]

_COLUMNS = (
    applications.c.app_id,
    applications.c.display_name,
    applications.c.service_state,
    applications.c.profile,
    applications.c.storage,
    applications.c.create_ns,
    applications.c.update_ns,
    applications.c.revision,
)
_BY_ID = select(*_COLUMNS)


@dataclass(frozen=True, slots=True)
class ApplicationRecord:
    """`storage` is a serialized StorageSettings with encrypted secrets; `revision` makes the etag."""

    app_id: str
    display_name: str = ""
    service_state: application_pb2.ServiceState.ValueType = application_pb2.SERVICE_STATE_ENABLED
    profile: application_pb2.Profile.ValueType = application_pb2.PROFILE_ROOMTAPE
    storage: bytes = b""
    create_ns: int = 0
    update_ns: int = 0
    revision: int = 0


async def add(uow: UnitOfWork, record: ApplicationRecord) -> ApplicationRecord:
    """Stores a new application; returns it with times and revision. Raises Refusal APPLICATION_EXISTS."""
    record = replace(record, create_ns=uow.now_ns, update_ns=uow.now_ns, revision=1)
    try:
        await uow.connection.execute(insert(applications).values(**_values(record)))
    except IntegrityError:
        raise Refusal(
            error_pb2.ERROR_REASON_APPLICATION_EXISTS,
            f"The application {record.app_id!r} exists.",
            metadata={"appId": record.app_id},
        ) from None
    return record


async def find(connection: AsyncConnection, app_id: str) -> ApplicationRecord | None:
    """The application, or None."""
    row = (await connection.execute(_BY_ID.where(applications.c.app_id == app_id))).first()
    return None if row is None else _record(row)


async def get(connection: AsyncConnection, app_id: str) -> ApplicationRecord:
    """The application. Raises Refusal APPLICATION_NOT_FOUND."""
    record = await find(connection, app_id)
    if record is None:
        raise Refusal(
            error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND,
            f"There is no application {app_id!r}.",
            metadata={"appId": app_id},
        )
    return record


async def change(uow: UnitOfWork, record: ApplicationRecord) -> ApplicationRecord:
    """Stores new values of the application, and returns it with its new `update_ns` and revision.

    `record.revision` must be the stored one: raises Refusal ETAG_MISMATCH if somebody changed it in between.
    """
    changed = replace(record, update_ns=uow.now_ns, revision=record.revision + 1)
    result = await uow.connection.execute(
        update(applications)
        .where(applications.c.app_id == record.app_id, applications.c.revision == record.revision)
        .values(**_values(changed))
    )
    if result.rowcount != 1:
        raise Refusal(
            error_pb2.ERROR_REASON_ETAG_MISMATCH,
            f"The application {record.app_id!r} was changed since it was read; read it again.",
            metadata={"appId": record.app_id},
        )
    return changed


async def page(connection: AsyncConnection, after_app_id: str, limit: int) -> Sequence[ApplicationRecord]:
    """Up to `limit` applications by id, from the first after `after_app_id`; "" is before all."""
    rows = await connection.execute(
        _BY_ID.where(applications.c.app_id > after_app_id).order_by(applications.c.app_id).limit(limit)
    )
    return [_record(row) for row in rows]


async def all_ids(connection: AsyncConnection) -> Sequence[str]:
    """The ids of all applications."""
    return (await connection.scalars(select(applications.c.app_id).order_by(applications.c.app_id))).all()


def _record(row: Row[str, str, int, int, bytes, int, int, int]) -> ApplicationRecord:
    return ApplicationRecord(
        app_id=row.app_id,
        display_name=row.display_name,
        service_state=application_pb2.ServiceState.ValueType(row.service_state),
        profile=application_pb2.Profile.ValueType(row.profile),
        storage=bytes(row.storage),
        create_ns=row.create_ns,
        update_ns=row.update_ns,
        revision=row.revision,
    )


def _values(record: ApplicationRecord) -> dict[str, str | int | bytes]:
    return {column.name: getattr(record, column.name) for column in _COLUMNS}
