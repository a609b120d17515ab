"""What fields of requests may hold, as tables."""

import unicodedata
from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from roomtape.v1 import error_pb2, task_pb2
from roomtape_service.errors import Refusal
from roomtape_service.rpc import validation

REQUIRED = error_pb2.ERROR_REASON_FIELD_REQUIRED
BAD_ID = error_pb2.ERROR_REASON_INVALID_ID
BAD_VALUE = error_pb2.ERROR_REASON_INVALID_VALUE

Check = Callable[[str], validation.Problem | None]

NAMES: list[Check] = [validation.room_id, validation.user_id]
SHORT_IDS: list[Check] = [validation.publish_session_id, validation.track_id]

LEGAL: list[tuple[Check, str]] = [
    (validation.app_id, "a"),
    (validation.app_id, "My-App.2"),
    (validation.app_id, "a" * 64),
    (validation.app_id, ".."),
    (validation.task_id, "7203685477580799999"),
    (validation.task_id, "18446744073709551615"),
    (validation.file_id, "a.b_c-D"),
    (validation.request_id, ""),
    (validation.request_id, "123e4567-e89b-12d3-a456-426614174000"),
    (validation.client_task_id, ""),
    (validation.client_task_id, "a_@-." * 25),
    (validation.key_prefix, ""),
    (validation.key_prefix, "录/音"),
    (validation.display_name, ""),
    (validation.display_name, "录" * 256),
    *(
        (check, legal)
        for check in NAMES
        for legal in ("a", "a/b", "..", "😀", "录音室", "a b", "é" * 64, " ", "\u2028")
    ),
    *((check, legal) for check in SHORT_IDS for legal in ("a", "A-b_c.9", "x" * 64)),
]

ILLEGAL: list[tuple[Check, str, int]] = [
    (validation.app_id, "", REQUIRED),
    (validation.app_id, "a" * 65, BAD_ID),
    (validation.app_id, "a/b", BAD_ID),
    (validation.app_id, "a\n", BAD_ID),
    (validation.app_id, "é", BAD_ID),
    (validation.app_id, "a_b", BAD_ID),
    (validation.task_id, "", REQUIRED),
    (validation.task_id, "12a", BAD_ID),
    (validation.task_id, "1" * 21, BAD_ID),
    (validation.task_id, "٣", BAD_ID),
    (validation.file_id, "", REQUIRED),
    (validation.file_id, "a b", BAD_ID),
    (validation.file_id, "a" * 129, BAD_ID),
    (validation.request_id, "a" * 37, BAD_ID),
    (validation.request_id, "é", BAD_ID),
    (validation.request_id, "a b", BAD_ID),
    (validation.client_task_id, "a" * 129, BAD_ID),
    (validation.client_task_id, "a/b", BAD_ID),
    (validation.key_prefix, "录" * 342, BAD_VALUE),
    (validation.display_name, "x" * 257, BAD_VALUE),
    (validation.display_name, "a\tb", BAD_VALUE),
    *(
        (check, illegal, reason)
        for check in NAMES
        for illegal, reason in (
            ("", REQUIRED),
            ("a" * 129, BAD_ID),
            ("é" * 65, BAD_ID),
            ("a\0", BAD_ID),
            ("a\n", BAD_ID),
            ("\x7f", BAD_ID),
            ("\x85", BAD_ID),
        )
    ),
    *(
        (check, illegal, reason)
        for check in SHORT_IDS
        for illegal, reason in (
            ("", REQUIRED),
            ("x" * 65, BAD_ID),
            ("a/b", BAD_ID),
            ("a b", BAD_ID),
            ("é", BAD_ID),
        )
    ),
]


@pytest.mark.parametrize(("check", "value"), LEGAL)
def test_legal(check: Check, value: str) -> None:
    assert check(value) is None


@pytest.mark.parametrize(("check", "value", "reason"), ILLEGAL)
def test_illegal(check: Check, value: str, reason: int) -> None:
    problem = check(value)
    assert problem is not None
    assert problem.reason == reason
    for named in problem.metadata.values():
        assert named in problem.description
    assert len(problem.description) < 300


@given(st.text(min_size=1, max_size=140))
def test_a_name_is_legal_exactly_if_it_is_short_and_has_no_control_character(text: str) -> None:
    legal = len(text.encode("utf-8", "surrogatepass")) <= 128 and all(
        unicodedata.category(character) != "Cc" for character in text
    )
    assert (validation.room_id(text) is None) == legal


@pytest.mark.parametrize(
    ("check", "value"), [(validation.room_id, ""), (validation.track_id, ""), (validation.task_id, "")]
)
def test_ids_that_may_be_left_out(check: Callable[..., validation.Problem | None], value: str) -> None:
    assert check(value, required=False) is None


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, None),
        ({f"k{i}": "v" for i in range(32)}, None),
        ({"a-b_c./D9": "v" * 256}, None),
        ({"k": ""}, None),
        ({f"k{i}": "v" for i in range(33)}, "labels"),
        ({"": "v"}, "labels"),
        ({"k" * 64: "v"}, "labels"),
        ({"a b": "v"}, "labels"),
        ({"k": "v" * 257}, "labels.k"),
        ({"k": "a\0"}, "labels.k"),
    ],
)
def test_labels(values: dict[str, str], field: str | None) -> None:
    problem = validation.labels(values)
    assert (problem.field if problem else None) == field


@pytest.mark.parametrize(
    ("span", "legal"),
    [
        (None, True),
        (Duration(seconds=1), True),
        (Duration(seconds=86_400), True),
        (Duration(seconds=86_400, nanos=1), False),
        (Duration(nanos=999_999_999), False),
        (Duration(), False),
        (Duration(seconds=-5), False),
        (Duration(seconds=5, nanos=-1), False),
        (Duration(seconds=5, nanos=1_000_000_000), False),
    ],
)
def test_durations(span: Duration | None, legal: bool) -> None:
    problem = validation.duration(span, "output.segment_duration", least_seconds=1, most_seconds=86_400)
    assert (problem is None) == legal
    if problem:
        assert problem.metadata["most"] == "86400s"


@pytest.mark.parametrize(
    ("time", "legal"),
    [
        (None, True),
        (Timestamp(), True),
        (Timestamp(seconds=253_402_300_799, nanos=999_999_999), True),
        (Timestamp(seconds=253_402_300_800), False),
        (Timestamp(seconds=-1), False),
        (Timestamp(nanos=-1), False),
        (Timestamp(nanos=1_000_000_000), False),
    ],
)
def test_timestamps(time: Timestamp | None, legal: bool) -> None:
    assert (validation.timestamp(time, "start_time") is None) == legal


def test_enums() -> None:
    kind = task_pb2.RecordMode
    assert validation.enum(task_pb2.RECORD_MODE_SINGLE, kind, "mode") is None
    assert validation.enum(0, kind, "mode") is None
    unknown = validation.enum(99, kind, "mode", reason=error_pb2.ERROR_REASON_INVALID_RECORD_MODE)
    assert unknown is not None
    assert unknown.reason == error_pb2.ERROR_REASON_INVALID_RECORD_MODE
    assert unknown.metadata == {"value": "99"}
    missing = validation.enum(0, kind, "mode", required=True)
    assert missing is not None
    assert "RECORD_MODE_SINGLE_AND_MIXED" in missing.description
    assert "UNSPECIFIED" not in missing.description
    other = validation.enum(
        task_pb2.RECORD_MODE_MIXED,
        kind,
        "mode",
        allowed={task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_MIXED - 1},
    )
    assert other is not None
    assert other.metadata == {"value": "RECORD_MODE_MIXED"}


def test_update_masks() -> None:
    assert validation.update_mask(FieldMask(paths=["mode", "subscription"]), ("mode", "subscription")) is None
    assert validation.update_mask(FieldMask(), ("mode",)) is None
    for path in ("state", "*", "", "mode.x", "x" * 1000):
        problem = validation.update_mask(FieldMask(paths=["mode", path]), ("mode",))
        assert problem is not None
        assert problem.reason == error_pb2.ERROR_REASON_INVALID_UPDATE_MASK


def test_a_refusal_names_every_field_at_fault_by_its_own_reason() -> None:
    validation.refuse(None, validation.app_id("a"))
    with pytest.raises(Refusal) as caught:
        validation.refuse(validation.app_id("a"), validation.room_id("a\n"), validation.task_id(""))
    refusal = caught.value
    assert refusal.reason == BAD_ID
    assert refusal.metadata == {"field": "room_id", "value": repr("a\n"), "sizeBytes": "2"}
    assert [(violation.field, violation.reason) for violation in refusal.fields] == [
        ("room_id", BAD_ID),
        ("task_id", REQUIRED),
    ]


def test_page_sizes() -> None:
    assert validation.page_size(0) is None
    assert validation.page_size(10_000_000) is None
    assert validation.page_size(-1) is not None


def test_what_must_be_present() -> None:
    assert validation.present(True, "storage", "the store") is None
    problem = validation.present(False, "application", "the application to create")
    assert problem is not None
    assert problem.reason == REQUIRED
