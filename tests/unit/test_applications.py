"""Applications as rows, on both backends."""

from functools import partial

import pytest

from roomtape.v1 import error_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, applications
from roomtape_service.errors import Refusal
from tests.support.databases import APP, add_application


async def test_applications_are_added_changed_and_listed(database: Database, clock: ManualClock) -> None:
    added = await database.read(lambda connection: applications.get(connection, APP))
    assert (added.revision, added.create_ns) == (1, clock.now_ns())
    clock.advance(5)
    changed = await database.write(lambda uow: applications.change(uow, added))
    assert (changed.revision, changed.update_ns) == (2, clock.now_ns())
    with pytest.raises(Refusal) as refused:
        await database.write(lambda uow: applications.change(uow, added))
    assert refused.value.reason == error_pb2.ERROR_REASON_ETAG_MISMATCH
    with pytest.raises(Refusal) as refused:
        await database.read(lambda connection: applications.get(connection, "nobody"))
    assert refused.value.reason == error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND
    for app_id in ("c", "b"):
        await add_application(database, app_id)
    pages = []
    for after in ("", "b", "c"):
        page = await database.read(partial(applications.page, after_app_id=after, limit=2))
        pages.append([record.app_id for record in page])
    assert pages == [[APP, "b"], ["c"], []]
    assert await database.read(applications.all_ids) == [APP, "b", "c"]
