"""Keys of webhooks whose secret key was lost."""

from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database
from roomtape_service.database import webhooks as webhook_rows
from roomtape_service.database.webhooks import KeyRow
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.webhooks.keys import key_binding
from roomtape_service.webhooks.webhook import read_webhook
from tests.support.databases import APP, clock, database, database_url, postgres
from tests.support.webhook_rows import add_webhook, webhook

__all__ = ["clock", "database", "database_url", "postgres"]

LOST, BOX = SecretBox(bytes(32)), SecretBox(bytes(31) + b"1")


def sealed(box: SecretBox, number: int, value: str) -> KeyRow:
    binding = key_binding("w", str(number))
    return KeyRow("w", number, str(number), box.seal_text(APP, binding, value), create_ns=0)


async def test_a_new_key_signs_although_the_one_before_can_not_be_read(
    database: Database, clock: ManualClock
) -> None:
    row = await add_webhook(database, webhook("w"))
    await database.write(lambda uow: webhook_rows.add_first_key(uow, sealed(LOST, 1, "old")))

    async def keys() -> list[str]:
        now_ns = clock.now_ns()
        found = await database.read(lambda connection: read_webhook(connection, "w", BOX, now_ns))
        assert found is not None
        return [key.value for key in found.keys_at(now_ns)]

    assert await keys() == []
    end_ns = clock.now_ns() + 60 * NANOSECONDS
    await database.write(
        lambda uow: webhook_rows.add_key(uow, row, sealed(BOX, 2, "new"), others_end_ns=end_ns)
    )
    assert await keys() == ["new"]
