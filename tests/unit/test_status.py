"""Refusals as they stand on the wire."""

from typing import TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from roomtape.v1 import error_pb2
from roomtape_service.errors import CODES, FieldViolation, Refusal, field_refusal, reason_name
from roomtape_service.rpc.status import MAX_DETAILS_BYTES, internal, to_status

M = TypeVar("M", bound=Message)

# Sent inside of messages and events, never as the status of a call.
IN_BAND = {
    error_pb2.ERROR_REASON_UNSPECIFIED,
    error_pb2.ERROR_REASON_SPOOL_UNWRITABLE,
    error_pb2.ERROR_REASON_STORE_UNAVAILABLE,
    error_pb2.ERROR_REASON_WORKER_LOST,
    error_pb2.ERROR_REASON_SPOOL_NEARLY_FULL,
    error_pb2.ERROR_REASON_SPOOL_FILE_DAMAGED,
    error_pb2.ERROR_REASON_CREDENTIALS_EXPIRING,
    error_pb2.ERROR_REASON_WEBHOOK_FAILING,
}


def detail(status: status_pb2.Status, kind: type[M]) -> M | None:
    """The one detail of a kind, or None."""
    found = [packed for packed in status.details if packed.Is(kind.DESCRIPTOR)]
    assert len(found) <= 1
    if not found:
        return None
    unpacked = kind()
    found[0].Unpack(unpacked)
    return unpacked


def test_every_reason_that_ends_a_call_has_a_code() -> None:
    assert set(CODES) == set(error_pb2.ErrorReason.values()) - IN_BAND


@pytest.mark.parametrize("reason", sorted(CODES))
def test_every_reason_reads_as_its_name_and_code(reason: error_pb2.ErrorReason.ValueType) -> None:
    status = to_status(Refusal(reason, "text", metadata={"aKey": "a value"}), "r-1")
    assert status.code == CODES[reason].value[0]
    info = detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert (info.domain, info.reason, dict(info.metadata)) == (
        "roomtape",
        reason_name(reason),
        {"aKey": "a value"},
    )
    assert len(info.reason) <= 63
    request = detail(status, error_details_pb2.RequestInfo)
    assert request is not None
    assert request.request_id == "r-1"
    assert detail(status, error_details_pb2.BadRequest) is None
    assert detail(status, error_details_pb2.RetryInfo) is None


def test_fields_have_reasons_of_their_own() -> None:
    refusal = Refusal(
        error_pb2.ERROR_REASON_INVALID_ID,
        "text",
        fields=[
            FieldViolation("a", "is bad"),
            FieldViolation("b.c", "is missing", error_pb2.ERROR_REASON_FIELD_REQUIRED),
        ],
    )
    bad = detail(to_status(refusal, "r"), error_details_pb2.BadRequest)
    assert bad is not None
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("a", "is bad", "INVALID_ID"),
        ("b.c", "is missing", "FIELD_REQUIRED"),
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, (0, 0)), (1.5, (1, 500_000_000)), (0.9999999999, (1, 0))]
)
def test_waits_are_whole_durations(seconds: float, expected: tuple[int, int]) -> None:
    refusal = Refusal(error_pb2.ERROR_REASON_DRAINING, "text", retry_after_seconds=seconds)
    retry = detail(to_status(refusal, "r"), error_details_pb2.RetryInfo)
    assert retry is not None
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == expected


@given(
    st.text(max_size=3000),
    st.dictionaries(st.text(max_size=20), st.text(max_size=5000), max_size=40),
    st.lists(st.text(max_size=2000), max_size=60),
)
def test_a_status_fits_into_trailers_and_keeps_its_reason(
    message: str, metadata: dict[str, str], fields: list[str]
) -> None:
    refusal = Refusal(
        error_pb2.ERROR_REASON_INVALID_VALUE,
        message,
        metadata=metadata,
        fields=[FieldViolation(field, field) for field in fields],
    )
    status = to_status(refusal, "r-1")
    assert status.ByteSize() <= MAX_DETAILS_BYTES
    info = detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert info.reason == "INVALID_VALUE"
    assert detail(status, error_details_pb2.RequestInfo) is not None


def test_a_defect_names_nothing_but_its_request() -> None:
    refusal = internal("r-1")
    assert "r-1" in refusal.message
    assert refusal.metadata == {"requestId": "r-1"}


def test_a_refusal_of_one_field() -> None:
    refusal = field_refusal(error_pb2.ERROR_REASON_INVALID_VALUE, "a.b", "is odd", value="7")
    assert str(refusal) == "a.b: is odd"
    assert refusal.metadata == {"field": "a.b", "value": "7"}
