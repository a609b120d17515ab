"""Every format on every kind of event, against golden files and as the vendors' customers read it.

UPDATE_GOLDEN=1 writes what is made anew, and leaves the vectors, which are the vendors' own, as they are; look at what
changed before you commit it.
"""

import base64
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from roomtape.client import WebhookVerifier
from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.webhooks.formats import roomtape, trtc_classic, volc
from roomtape_service.webhooks.formats.format import (
    Delivery,
    Format,
    FormatContext,
    Need,
    Request,
    SigningKey,
)
from roomtape_service.webhooks.formats.signing import base64_hmac
from roomtape_service.webhooks.formats.table import FORMATS, format_of
from tests.support.webhook_customers import READERS
from tests.support.webhook_events import APP_ID, DELIVERY, TOLD, Told

GOLDEN = Path(__file__).parent.parent / "golden"
TABLE = Path(__file__).parents[2] / "docs" / "webhook-formats.md"

NAMES = {
    webhook_pb2.WebhookFormat.Name(kind).removeprefix("WEBHOOK_FORMAT_").lower().replace("_", "-"): kind
    for kind in FORMATS
}
KEYS = dict.fromkeys(NAMES, "secret") | {"roomtape": "whsec_" + base64.b64encode(b"k" * 32).decode()}
VENDORS = [name for name in NAMES if name != "roomtape"]


def golden(name: str) -> Path:
    return GOLDEN / f"webhook_{name.replace('-', '_')}.json"


def vectors(name: str) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads(golden(name).read_text())["vectors"]
    return read


def made(
    name: str, told: Told, *keys: str, delivery: Delivery = DELIVERY, has_string_room_ids: bool = False
) -> list[Request]:
    """What a format makes of an event, the way the delivery asks for it."""
    format = format_of(NAMES[name])
    if not format.knows(told.event.type):
        return []
    facts = None if format.needs(told.event.type) is Need.NOTHING else told.facts
    context = FormatContext(vendor_app_id=APP_ID, has_string_room_ids=has_string_room_ids, facts=facts)
    signing = [SigningKey(key) for key in keys or (KEYS[name],)]
    return list(format.requests(told.event, context, signing, delivery))


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_those_of_the_golden_file(name: str) -> None:
    path = golden(name)
    content = json.loads(path.read_text())
    requests = {
        what: [{"headers": dict(each.headers), "body": each.body.decode()} for each in requests]
        for what, told in TOLD.items()
        if (requests := made(name, told))
    }
    if os.environ.get("UPDATE_GOLDEN"):
        content |= {"key": KEYS[name], "delivery": str(DELIVERY), "requests": requests}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    assert requests == content["requests"]


def test_signatures_are_those_of_the_vectors() -> None:
    for each in vectors("roomtape"):
        arguments = each["key"], each["webhook-id"], each["webhook-timestamp"], each["body"].encode()
        assert roomtape.signature(*arguments) == each["webhook-signature"]
    for each in vectors("gme"):
        assert base64_hmac(each["key"].encode(), each["body"].encode(), "sha1") == each["Signature"]
    for each in vectors("trtc"):
        assert base64_hmac(each["key"].encode(), each["body"].encode(), "sha256") == each["Sign"]
    for each in vectors("trtc-classic"):
        assert trtc_classic.signature(each["key"], each["t"]) == each["sign"]
    for each in vectors("volc"):
        assert volc.signature(each["values"], each["key"]) == each["Signature"]


def test_trtcs_own_sample_is_what_we_say_of_the_same_event() -> None:
    (vector,) = (each for each in vectors("trtc") if "204" in each["body"])
    event = event_pb2.Event()
    event.CopyFrom(TOLD["track muted"].event)
    event.room_id, event.participant.user_id = "8489", "user_85034614"
    event.event_time.FromMilliseconds(1_664_209_748_180)
    (request,) = made("trtc", Told(event), vector["key"], delivery=Delivery("1", 1_664_209_748_188_000_000))
    assert json.loads(request.body) == json.loads(vector["body"])


def test_gmes_own_sample_is_what_we_say_of_the_same_event() -> None:
    (vector,) = vectors("gme")
    (request,) = made("gme", TOLD["segment started"], delivery=Delivery("1", 1_675_930_605_000_000_000))
    ours, theirs = json.loads(request.body), json.loads(vector["body"])
    # Their sample is of one user and says mixed, and has the task's id where its own naming rule has the segment's.
    assert (ours.pop("RecordMode"), theirs.pop("RecordMode")) == (0, 1)
    folder, file = "1400000000_100_999", "2023-02-09-16-16-45"
    assert ours.pop("Detail") == {"SeqNo": 0, "FileName": f"{folder}/{file}_0_audio.mp3"}
    assert theirs.pop("Detail") == {"SeqNo": 0, "FileName": f"{folder}/{file}_446946705284000000_audio.mp3"}
    assert (ours.pop("TaskID"), ours) == (theirs.pop("TaskID"), theirs)


@pytest.mark.parametrize("name", VENDORS)
def test_customers_can_read_all_of_it(name: str) -> None:
    seen = 0
    for told in TOLD.values():
        for request in made(name, told):
            READERS[name](request.headers, request.body, KEYS[name])
            seen += 1
    assert seen


@pytest.mark.parametrize("what", TOLD)
def test_our_own_format_carries_every_event_as_it_is(what: str) -> None:
    told = TOLD[what]
    (request,) = made("roomtape", told)
    received = WebhookVerifier(KEYS["roomtape"], now_ns=lambda: DELIVERY.attempt_ns).verify(
        request.body, request.headers
    )
    assert received.event == told.event
    assert received.webhook_id == DELIVERY.delivery_id


@pytest.mark.parametrize("name", NAMES)
def test_they_are_pure_and_of_one_length_in_every_attempt(name: str) -> None:
    later = Delivery(DELIVERY.delivery_id, DELIVERY.attempt_ns + 86_400_000_000_000)
    for told in TOLD.values():
        first = made(name, told)
        assert made(name, told) == first
        assert len(made(name, told, delivery=later)) == len(first)


@pytest.mark.parametrize("name", NAMES)
def test_an_id_of_a_delivery_is_the_same_in_every_attempt(name: str) -> None:
    later = Delivery(DELIVERY.delivery_id, DELIVERY.attempt_ns + 60_000_000_000)
    told = TOLD["segment uploaded"]
    (first,), (second,) = made(name, told), made(name, told, delivery=later)
    if name == "roomtape":
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60
        assert first.body == second.body
    if name == "volc":
        one, other = json.loads(first.body), json.loads(second.body)
        changed = {field for field in one if one[field] != other[field]}
        assert changed == {"Nonce", "Signature"}


@pytest.mark.parametrize("name", VENDORS)
def test_vendors_are_signed_by_the_oldest_key_that_has_not_ended(name: str) -> None:
    (request,) = made(name, TOLD["segment uploaded"], "NewKey123", "OldKey456")
    READERS[name](request.headers, request.body, "OldKey456")
    with pytest.raises(AssertionError):
        READERS[name](request.headers, request.body, "NewKey123")


def test_our_own_is_signed_by_all_keys_newest_first() -> None:
    keys = [f"whsec_{base64.b64encode(bytes([each]) * 24).decode()}" for each in b"ab"]
    (request,) = made("roomtape", TOLD["gap"], *keys)
    single = [made("roomtape", TOLD["gap"], key)[0].headers["webhook-signature"] for key in keys]
    assert request.headers["webhook-signature"] == " ".join(single)


@pytest.mark.parametrize("name", NAMES)
def test_keys_that_are_made_are_taken_and_differ(name: str) -> None:
    format = format_of(NAMES[name])
    source = random.Random(7)
    keys = {format.make_key(source.randbytes) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        format.check_key(key)


WRONG_KEYS = {
    "roomtape": [
        "",
        "secret",
        "whsec_",
        "whsec_AAAA",
        f"whsec_{'A' * 32}=",
        f"whsec_{'A' * 92}",
        f" {KEYS['roomtape']}",
    ],
    **{name: ["", "k" * 33, "with-dash", "schlüssel", "line\n", "٣"] for name in VENDORS},
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in WRONG_KEYS.items() for key in keys])
def test_keys_that_are_none_are_refused_and_not_repeated(name: str, key: str) -> None:
    with pytest.raises(ValueError, match="a key") as caught:
        format_of(NAMES[name]).check_key(key)
    assert len(key) < 9 or key not in str(caught.value)


def test_a_key_is_in_no_text_of_what_carries_it() -> None:
    assert "secret" not in repr(SigningKey("secret"))
    assert KEYS["roomtape"] not in repr(made("roomtape", TOLD["gap"]))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("gme", ["1", "3400352518", str(2**64 - 1)], ["", "0", "01", "-1", "1e3", "app", "٣", str(2**64)]),
        ("trtc", ["1400000000", str(2**32 - 1)], ["", "0", "+1", "14 0", "app", str(2**32)]),
        ("trtc-classic", ["1400000000"], ["", "app", str(2**32)]),
        ("volc", ["5f2b7e3a8c", "app.1"], ["", "a b", "ü", "a" * 129]),
        ("roomtape", ["", "anything"], []),
    ],
)
def test_ids_of_applications_have_the_vendors_shape(name: str, good: list[str], bad: list[str]) -> None:
    format = format_of(NAMES[name])
    for each in good:
        format.check_app_id(each)
    for each in bad:
        with pytest.raises(ValueError, match="and not"):
            format.check_app_id(each)


@pytest.mark.parametrize(
    ("room_id", "told"),
    [
        ("1", 1),
        ("4294967294", 4_294_967_294),
        ("4294967295", "4294967295"),
        ("0", "0"),
        ("007", "007"),
        ("a1", "a1"),
        ("٣", "٣"),
        ("²", "²"),
        ("9" * 100, "9" * 100),
    ],
)
def test_trtc_has_numbers_where_its_clients_have_them(room_id: str, told: str | int) -> None:
    event = event_pb2.Event()
    event.CopyFrom(TOLD["room closed"].event)
    event.room_id = room_id
    (request,) = made("trtc", Told(event))
    assert json.loads(request.body)["EventInfo"]["RoomId"] == told
    (request,) = made("trtc", Told(event), has_string_room_ids=True)
    assert json.loads(request.body)["EventInfo"]["RoomId"] == room_id


def test_every_type_of_event_is_among_the_samples() -> None:
    known = {told.event.type for told in TOLD.values()}
    assert known == set(event_pb2.EventType.values()) - {event_pb2.EVENT_TYPE_UNSPECIFIED}


@pytest.mark.parametrize("name", NAMES)
def test_a_format_knows_what_it_tells_of(name: str) -> None:
    """No type is queued of which a format never says a word."""
    format: Format = format_of(NAMES[name])
    telling = {told.event.type for told in TOLD.values() if made(name, told)}
    assert {type for type in event_pb2.EventType.values() if format.knows(type)} == telling


def test_facts_that_are_gone_stop_nothing() -> None:
    for name in NAMES:
        for told in TOLD.values():
            made(name, Told(told.event))


def test_the_documents_table_is_what_the_formats_say() -> None:
    rows = dict(_rows(TABLE.read_text()))
    for type in event_pb2.EventType.values()[1:]:
        row = rows.pop(event_pb2.EventType.Name(type).removeprefix("EVENT_TYPE_"))
        for name in VENDORS:
            assert row[name] == _told_of(name, type), f"{event_pb2.EventType.Name(type)} as {name}"
    assert not rows


def _told_of(name: str, type: event_pb2.EventType.ValueType) -> str:
    told = (made(name, each) for each in TOLD.values() if each.event.type == type)
    names = {READERS[name](each.headers, each.body, KEYS[name])[0] for requests in told for each in requests}
    return ", ".join(sorted(names)) or "–"


def _rows(text: str) -> list[tuple[str, Mapping[str, str]]]:
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines()]
    table = [row for row in cells if len(row) == 1 + len(VENDORS)]
    head, _, *rows = table
    assert head[1:] == VENDORS
    return [(row[0], dict(zip(VENDORS, row[1:], strict=True))) for row in rows]


def test_json_of_an_event_can_be_read_by_any_proto3_library() -> None:
    (request,) = made("roomtape", TOLD["files complete"])
    assert json_format.Parse(request.body, event_pb2.Event()) == TOLD["files complete"].event
