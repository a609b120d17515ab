"""Verifying webhooks, by the vector of Standard Webhooks and on what the service makes."""

import base64
import hmac
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape.client import (
    WebhookBodyError,
    WebhookHeaderError,
    WebhookSignatureError,
    WebhookTimestampError,
    WebhookVerifier,
    verify_webhook,
)
from roomtape.v1 import event_pb2
from tests.support.webhook_requests import KEY, OTHER_KEY, SENT_SECONDS, event, request

VECTOR_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""Of the libraries of Standard Webhooks 1.0.0, in every language."""


def verifier(
    *keys: str, at_seconds: float = SENT_SECONDS, tolerance_seconds: float = 300.0
) -> WebhookVerifier:
    return WebhookVerifier(
        keys or (KEY,), tolerance_seconds=tolerance_seconds, now_ns=lambda: round(at_seconds * 1e9)
    )


def test_the_vector_of_standard_webhooks_verifies() -> None:
    one = verifier(VECTOR_KEY, at_seconds=1614265330)
    # It is signed as it should be; what it says is no event.
    with pytest.raises(WebhookBodyError, match="msg_p5jXN8AQM9LWM0D4loKWxJek"):
        one.verify(VECTOR_BODY, VECTOR)
    with pytest.raises(WebhookSignatureError):
        one.verify(VECTOR_BODY + b" ", VECTOR)


def test_one_call_gives_the_event() -> None:
    made = request(event(7))
    now_ns = SENT_SECONDS * 1_000_000_000
    assert verify_webhook(made.body, made.headers, KEY, now_ns=lambda: now_ns) == event(7)
    assert verify_webhook(made.body, made.headers, [OTHER_KEY, KEY], now_ns=lambda: now_ns) == event(7)


@pytest.mark.parametrize("known", [(KEY,), (OTHER_KEY,), (OTHER_KEY, KEY)])
def test_while_keys_overlap_each_of_them_verifies(known: tuple[str, ...]) -> None:
    made = request(event(), OTHER_KEY, KEY)
    assert made.headers["webhook-signature"].count("v1,") == 2
    assert verifier(*known).verify(made.body, made.headers).event == event()


def test_names_of_headers_are_taken_in_any_case() -> None:
    made = request(event())
    headers = {name.title(): value for name, value in made.headers.items()}
    assert verifier().verify(made.body, headers).event == event()


def test_signatures_of_other_versions_are_left_out() -> None:
    made = request(event())
    signature = made.headers["webhook-signature"]
    headers = {**made.headers, "webhook-signature": f"v1a,AAAA {signature} v2,AAAA"}
    assert verifier().verify(made.body, headers).event == event()
    with pytest.raises(WebhookHeaderError, match="version v1"):
        verifier().verify(made.body, {**made.headers, "webhook-signature": "v1a,AAAA"})


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    made = request(event())
    for headers in (without(made.headers, name), {**made.headers, name: ""}):
        with pytest.raises(WebhookHeaderError, match=name):
            verifier().verify(made.body, headers)


@pytest.mark.parametrize("time", ["now", "-1", "1.5", "1e9", " 1700000000", "٣", "9" * 5_000])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    made = request(event())
    with pytest.raises(WebhookHeaderError, match="webhook-timestamp"):
        verifier().verify(made.body, {**made.headers, "webhook-timestamp": time})


def test_a_change_of_anything_that_is_signed_is_found() -> None:
    made = request(event())
    changes: list[tuple[bytes, Mapping[str, str]]] = [
        (made.body.replace(b"app", b"eve"), made.headers),
        (made.body, {**made.headers, "webhook-id": "delivery-2"}),
        (made.body, {**made.headers, "webhook-timestamp": str(SENT_SECONDS + 1)}),
        (made.body, {**made.headers, "webhook-signature": "v1,"}),
        (made.body, {**made.headers, "webhook-signature": "v1,\udcff"}),
        (made.body, {**made.headers, "webhook-id": "\udcff"}),
    ]
    for body, headers in changes:
        with pytest.raises(WebhookSignatureError):
            verifier().verify(body, headers)
    with pytest.raises(WebhookSignatureError):
        verifier(OTHER_KEY).verify(made.body, made.headers)


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(position: int, bit: int) -> None:
    made = request(event())
    body = bytearray(made.body)
    body[position % len(body)] ^= 1 << bit
    with pytest.raises(WebhookSignatureError):
        verifier().verify(bytes(body), made.headers)


@pytest.mark.parametrize(
    ("late_seconds", "tolerance_seconds", "passes"),
    [(300, 300, True), (301, 300, False), (-300, 300, True), (-301, 300, False), (3_600, 86_400, True)],
)
def test_the_time_is_tolerated_on_both_sides(
    late_seconds: float, tolerance_seconds: float, passes: bool
) -> None:
    made = request(event())
    one = verifier(at_seconds=SENT_SECONDS + late_seconds, tolerance_seconds=tolerance_seconds)
    if passes:
        assert one.verify(made.body, made.headers).timestamp == SENT_SECONDS
    else:
        with pytest.raises(WebhookTimestampError, match="ago" if late_seconds > 0 else "ahead"):
            one.verify(made.body, made.headers)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"{", b"\xff", b'{"sequence": "x"}', b"[" * 100_000])
def test_what_is_signed_and_no_event_is_told_apart(body: bytes) -> None:
    made = signed(body)
    with pytest.raises(WebhookBodyError, match="delivery-1"):
        verifier().verify(body, made)


def test_what_a_newer_server_adds_is_left_out() -> None:
    body = json.dumps(
        {"sequence": "4", "type": "EVENT_TYPE_OF_NEXT_YEAR", "appId": "app", "moreDetail": {"a": [1]}}
    ).encode()
    assert verifier().verify(body, signed(body)).event == event_pb2.Event(sequence=4, app_id="app")


@pytest.mark.parametrize(
    "key", ["", "whsec_", KEY.removeprefix("whsec_"), "whsec_c2hvcnQ=", f"{KEY}!", f"whsec_{'QUJD' * 30}"]
)
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        WebhookVerifier([KEY, key])
    assert not key.removeprefix("whsec_") or key.removeprefix("whsec_") not in str(caught.value)


def test_without_a_key_nothing_is_verified() -> None:
    with pytest.raises(ValueError, match="without a key"):
        WebhookVerifier([])


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {given: value for given, value in headers.items() if given != name}


def signed(body: bytes) -> dict[str, str]:
    """Headers for a body that the service would not send."""
    text = f"delivery-1.{SENT_SECONDS}.".encode() + body
    digest = hmac.digest(base64.b64decode(KEY.removeprefix("whsec_")), text, "sha256")
    return {
        "webhook-id": "delivery-1",
        "webhook-timestamp": str(SENT_SECONDS),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
