"""Our own format: the Event of WatchEvents as proto3 JSON, signed as Standard Webhooks 1.0.0 has it.

1. The body is the event in the canonical JSON mapping of proto3: lowerCamelCase names, 64-bit numbers as strings,
   times in RFC 3339, fields with their default values left out.
2. `webhook-id` is the delivery's id, the same in every attempt. `webhook-timestamp` is the attempt's time in Unix
   seconds.
3. What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, by HMAC-SHA256 with the bytes behind the key's
   `whsec_`. `webhook-signature` is `v1,` and the base 64 of it; for each key that has not ended, newest first, with a
   space between them.
"""

import base64
import binascii
from collections.abc import Sequence

from google.protobuf import json_format

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.webhooks.formats.format import (
    Delivery,
    FormatContext,
    Need,
    RandomBytes,
    Request,
    SigningKey,
)
from roomtape_service.webhooks.formats.signing import JSON_HEADERS, base64_hmac

__all__ = ["RoomtapeFormat", "signature"]

_KEY_PREFIX = "whsec_"
_KEY_BYTES = 32
_MIN_KEY_BYTES = 24
_MAX_KEY_BYTES = 64
"""Standard Webhooks 1.0.0, "Signature scheme": between 24 bytes and 64 bytes."""


class RoomtapeFormat:
    """Every event, as it is."""

    def knows(self, type: event_pb2.EventType.ValueType) -> bool:
        return type != event_pb2.EVENT_TYPE_UNSPECIFIED

    def needs(self, type: event_pb2.EventType.ValueType) -> Need:
        return Need.NOTHING

    def requests(
        self, event: event_pb2.Event, context: FormatContext, keys: Sequence[SigningKey], delivery: Delivery
    ) -> Sequence[Request]:
        body = json_format.MessageToJson(event, indent=None, ensure_ascii=False).encode()
        timestamp = str(delivery.attempt_ns // NANOSECONDS)
        signatures = [signature(key.value, delivery.delivery_id, timestamp, body) for key in keys]
        headers = {
            **JSON_HEADERS,
            "webhook-id": delivery.delivery_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
        }
        return [Request(headers, body)]

    def check_key(self, value: str) -> None:
        _key_bytes(value)

    def make_key(self, randomness: RandomBytes) -> str:
        return _KEY_PREFIX + base64.b64encode(randomness(_KEY_BYTES)).decode()

    def check_app_id(self, vendor_app_id: str) -> None:
        """Every id will do: the event says its application by our own."""


def signature(key: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """One of the signatures of `webhook-signature`."""
    return f"v1,{base64_hmac(_key_bytes(key), f'{webhook_id}.{timestamp}.'.encode() + body, 'sha256')}"


def _key_bytes(value: str) -> bytes:
    try:
        key = base64.b64decode(value.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    # Some libraries refuse what others make of padding too much and of bits left over.
    is_exact = value == _KEY_PREFIX + base64.b64encode(key).decode()
    if not is_exact or not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise ValueError(
            f"a key is {_KEY_PREFIX} and {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes in base 64 with its padding"
        )
    return key
