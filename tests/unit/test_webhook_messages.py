"""What a webhook is between requests, its row and replies."""

from typing import Final

import pytest

from roomtape.v1 import webhook_pb2
from roomtape_service.database.deliveries import Standing
from roomtape_service.rpc import webhook_messages as messages

URL = "https://hooks.example.com/"
PATH: Final = "string_room_ids"


@pytest.mark.parametrize("value", [True, False])
def test_whether_room_ids_are_strings_is_kept_until_it_is_changed(value: bool) -> None:
    wanted = webhook_pb2.Webhook(app_id="app", url=URL, format=webhook_pb2.WEBHOOK_FORMAT_TRTC)
    assert not messages.new_webhook(wanted, "1").has_string_room_ids
    wanted.string_room_ids = value
    row = messages.new_webhook(wanted, "1")
    reply = messages.webhook_message(row, [], Standing())
    assert reply.HasField(PATH)
    assert reply.string_room_ids is value
    change = webhook_pb2.Webhook(app_id="app", webhook_id="1", string_room_ids=not value)
    assert messages.paths_set(change) == {PATH}
    assert messages.changed(row, change, frozenset({PATH})).has_string_room_ids is not value
    assert messages.changed(row, change, frozenset({"url"})).has_string_room_ids is value


def test_every_field_that_a_caller_sets_can_be_changed_but_its_format() -> None:
    fixed = {"webhook_id", "app_id", "format", "keys", "create_time", "update_time", "etag", "status"}
    assert set(messages.CHANGEABLE_PATHS) == set(webhook_pb2.Webhook.DESCRIPTOR.fields_by_name) - fixed
