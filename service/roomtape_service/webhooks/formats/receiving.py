"""The vendors' formats on the receiving side: is a request signed with one of the keys, and which event is it?"""

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from roomtape.v1 import webhook_pb2
from roomtape_service.webhooks.formats import trtc_classic, volc
from roomtape_service.webhooks.formats.signing import base64_hmac

__all__ = ["NotGenuine", "VendorEvent", "read_vendor_event"]

Content = Mapping[str, object]


class NotGenuine(Exception):
    """A request that no key signed, or that is none of the format; `str()` of it says what is wrong."""


@dataclass(frozen=True, slots=True)
class VendorEvent:
    """An event as the vendor's customers know it: its number or name, and the whole body."""

    name: str
    content: Content


def read_vendor_event(
    kind: webhook_pb2.WebhookFormat.ValueType,
    headers: Mapping[str, str],
    body: bytes,
    keys: Sequence[str],
    now_seconds: int,
) -> VendorEvent:
    """The event of a request of a vendor's format; `headers` with names in any case that the mapping takes.

    Raises NotGenuine.
    """
    try:
        content = json.loads(body)
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise NotGenuine(f"the body can't be read: {error}") from error
    name, given, expected = _READERS[kind](headers, body, content)
    if not given:
        raise NotGenuine(f"there is no {name} in it")
    signatures = [expected(key).encode() for key in keys]
    if not any(hmac.compare_digest(given.encode(errors="replace"), each) for each in signatures):
        raise NotGenuine(f"its {name} was made with no key that is known here")
    if kind == webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC and _number(content, "t") < now_seconds:
        raise NotGenuine("it is older than ten minutes")
    return VendorEvent(str(content.get(_NAMES[kind], "")), content)


Reading = tuple[str, str, Callable[[str], str]]
"""Where the signature is, what it is, and what it should be with a key."""


def _gme(headers: Mapping[str, str], body: bytes, content: Content) -> Reading:
    return "Signature", headers.get("Signature", ""), lambda key: base64_hmac(key.encode(), body, "sha1")


def _trtc(headers: Mapping[str, str], body: bytes, content: Content) -> Reading:
    return "Sign", headers.get("Sign", ""), lambda key: base64_hmac(key.encode(), body, "sha256")


def _trtc_classic(headers: Mapping[str, str], body: bytes, content: Content) -> Reading:
    expires = _number(content, "t")
    return "sign", str(content.get("sign", "")), lambda key: trtc_classic.signature(key, expires)


def _volc(headers: Mapping[str, str], body: bytes, content: Content) -> Reading:
    values = [str(value) for name, value in content.items() if name != "Signature"]
    return "Signature", str(content.get("Signature", "")), lambda key: volc.signature(values, key)


_READERS: Mapping[
    webhook_pb2.WebhookFormat.ValueType, Callable[[Mapping[str, str], bytes, Content], Reading]
] = {
    webhook_pb2.WEBHOOK_FORMAT_GME: _gme,
    webhook_pb2.WEBHOOK_FORMAT_TRTC: _trtc,
    webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC: _trtc_classic,
    webhook_pb2.WEBHOOK_FORMAT_VOLC: _volc,
}
_NAMES: Mapping[webhook_pb2.WebhookFormat.ValueType, str] = {
    webhook_pb2.WEBHOOK_FORMAT_GME: "EventType",
    webhook_pb2.WEBHOOK_FORMAT_TRTC: "EventType",
    webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC: "event_type",
    webhook_pb2.WEBHOOK_FORMAT_VOLC: "EventType",
}


def _number(content: Content, name: str) -> int:
    value = content.get(name)
    return value if isinstance(value, int) else 0
