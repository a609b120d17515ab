"""Webhooks of the format ROOMTAPE on the receiving side: is it from our server, and what does it say?

    Exception
    └── WebhookError                 a request that must not be believed, or can't be understood
        ├── WebhookHeaderError       a header is missing or can't be read
        ├── WebhookSignatureError    no signature was made with any of the keys
        ├── WebhookTimestampError    signed, but too long ago or ahead: perhaps an old request that somebody sends again
        └── WebhookBodyError         signed, but not an event

The convention is Standard Webhooks 1.0.0: `webhook-signature` has, separated by spaces, `v1,` and the base 64 of
HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`, one for each key that the server has; while keys overlap
these are several.
"""

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import json_format

from roomtape.v1 import event_pb2

__all__ = [
    "TOLERANCE_SECONDS",
    "ReceivedWebhook",
    "WebhookBodyError",
    "WebhookError",
    "WebhookHeaderError",
    "WebhookSignatureError",
    "WebhookTimestampError",
    "WebhookVerifier",
    "verify_webhook",
]

TOLERANCE_SECONDS = 300.0
"""How far a webhook's time may be from ours: what the libraries of Standard Webhooks allow."""

_NANOSECONDS = 1_000_000_000
_KEY_PREFIX = "whsec_"
_MIN_KEY_BYTES = 24
_MAX_KEY_BYTES = 64
_VERSION = "v1"
_TIMESTAMP_DIGITS = 11
"""Enough for every year in which anybody reads this, and few enough for a number to stay one."""


class WebhookError(Exception):
    """A request that must not be believed, or can't be understood. Its text repeats nothing secret."""


class WebhookHeaderError(WebhookError):
    """A header of Standard Webhooks is missing or can't be read."""


class WebhookSignatureError(WebhookError):
    """No signature was made with any of the keys: it is from somebody else, or was changed on its way."""


class WebhookTimestampError(WebhookError):
    """It is signed, but its time is further from ours than tolerated."""


class WebhookBodyError(WebhookError):
    """It is signed, but holds no event: the URL gets webhooks of another service or of another format."""


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """A webhook that was verified."""

    webhook_id: str
    """The delivery: the same in every attempt, so that one who has seen it need not act again."""
    timestamp: int
    """When it was sent, in Unix seconds; later in every attempt."""
    event: event_pb2.Event
    """What happened. Its type is UNSPECIFIED if it is newer than this library; ignore it then."""


class WebhookVerifier:
    """Verifies what comes for one webhook."""

    def __init__(
        self,
        keys: str | Iterable[str],
        *,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`keys` are the webhook's `whsec_…`, in any order; two while they overlap. `now_ns` is UTC since 1970.

        Raises ValueError for a key that is none, and for no key at all.
        """
        self._keys = [_key_bytes(key) for key in ([keys] if isinstance(keys, str) else keys)]
        if not self._keys:
            raise ValueError("without a key no webhook can be verified")
        self._tolerance_seconds = tolerance_seconds
        self._now_ns = now_ns

    def verify(self, body: bytes, headers: Mapping[str, str]) -> ReceivedWebhook:
        """The webhook. `body` are the bytes as they came; names of headers are taken in any case.

        Raises WebhookHeaderError, WebhookSignatureError, WebhookTimestampError, WebhookBodyError.
        """
        webhook_id = _header(headers, "webhook-id")
        sent = _header(headers, "webhook-timestamp")
        if not (sent.isascii() and sent.isdecimal() and len(sent) <= _TIMESTAMP_DIGITS):
            raise WebhookHeaderError(
                f"webhook-timestamp is not in Unix seconds: {sent[:_TIMESTAMP_DIGITS]!r}"
            )
        self._check_signature(_raw(f"{webhook_id}.{sent}.") + body, _header(headers, "webhook-signature"))
        late_seconds = self._now_ns() / _NANOSECONDS - int(sent)
        if abs(late_seconds) > self._tolerance_seconds:
            direction = "ago" if late_seconds > 0 else "ahead"
            raise WebhookTimestampError(
                f"the webhook {webhook_id} was sent {abs(late_seconds):.0f} s {direction}, and "
                f"{self._tolerance_seconds:g} s are tolerated; is this machine's clock right?"
            )
        return ReceivedWebhook(webhook_id, int(sent), _event(webhook_id, body))

    def _check_signature(self, signed: bytes, header: str) -> None:
        given = [
            _raw(signature)
            for version, _, signature in (each.partition(",") for each in header.split(" "))
            if version == _VERSION
        ]
        if not given:
            raise WebhookHeaderError(f"webhook-signature has no signature of version {_VERSION}")
        matches = False
        for key in self._keys:
            expected = base64.b64encode(hmac.digest(key, signed, "sha256"))
            for signature in given:
                # Every comparison is made, and each takes the same time whatever differs.
                matches |= hmac.compare_digest(expected, signature)
        if not matches:
            raise WebhookSignatureError(
                "no signature of the webhook was made with a known key; was it of this URL's webhook, and was the "
                "body taken as it came?"
            )


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    keys: str | Iterable[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now_ns: Callable[[], int] = time.time_ns,
) -> event_pb2.Event:
    """The event of a webhook, if it is genuine: `WebhookVerifier.verify` in one call.

    Raises WebhookHeaderError, WebhookSignatureError, WebhookTimestampError, WebhookBodyError, and ValueError for a key
    that is none.
    """
    verifier = WebhookVerifier(keys, tolerance_seconds=tolerance_seconds, now_ns=now_ns)
    return verifier.verify(body, headers).event


def _key_bytes(key: str) -> bytes:
    try:
        value = base64.b64decode(key.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    is_exact = key == _KEY_PREFIX + base64.b64encode(value).decode()
    if not is_exact or not _MIN_KEY_BYTES <= len(value) <= _MAX_KEY_BYTES:
        raise ValueError(
            f"a key is {_KEY_PREFIX} and {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes in base 64; this is something else"
        )
    return value


def _raw(text: str) -> bytes:
    # Servers hand out bytes of headers that are not UTF-8 as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((value for given, value in headers.items() if given.lower() == name), "")
    if not value:
        raise WebhookHeaderError(f"the header {name} is missing")
    return value


def _event(webhook_id: str, body: bytes) -> event_pb2.Event:
    try:
        # A server that is newer than this library may say more.
        event = json_format.Parse(body, event_pb2.Event(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise WebhookBodyError(f"the webhook {webhook_id} is no event: {error}") from error
    if not event.sequence:
        raise WebhookBodyError(f"the webhook {webhook_id} is no event: it has no sequence")
    return event
