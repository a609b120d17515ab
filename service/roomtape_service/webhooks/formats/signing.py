"""What the vendors' formats share: keys, signatures, numbers and JSON as their callbacks have them."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape_service.webhooks.formats.format import RandomBytes, Request, SigningKey

__all__ = [
    "JSON_HEADERS",
    "MAX_VENDOR_KEY_CHARACTERS",
    "base64_hmac",
    "check_number",
    "check_vendor_key",
    "compact",
    "hex_digest",
    "make_vendor_key",
    "milliseconds",
    "seconds",
    "signed_by_header",
    "vendor_key",
]

JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json"}

MAX_VENDOR_KEY_CHARACTERS = 32
"""TRTC's console takes so many letters and digits for a callback key, and its older one too."""

_VENDOR_KEY = re.compile(rf"[A-Za-z0-9]{{1,{MAX_VENDOR_KEY_CHARACTERS}}}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NUMBER = re.compile(r"[1-9][0-9]*")


def check_vendor_key(value: str) -> None:
    """Raises ValueError unless it is what every vendor's console takes as a callback key."""
    if not _VENDOR_KEY.fullmatch(value):
        raise ValueError(f"a key of a vendor's format is 1 to {MAX_VENDOR_KEY_CHARACTERS} letters and digits")


def make_vendor_key(randomness: RandomBytes) -> str:
    """A key of as many characters as fit: 160 bits."""
    # The alphabet has 32 characters, so that no byte prefers one of them.
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in randomness(MAX_VENDOR_KEY_CHARACTERS))


def vendor_key(keys: Sequence[SigningKey]) -> bytes:
    """The key that signs where there is room for one signature: the oldest that has not ended."""
    return keys[-1].value.encode()


def base64_hmac(key: bytes, body: bytes, algorithm: str) -> str:
    """Base64 of an HMAC, as Tencent's headers have it."""
    return base64.b64encode(hmac.new(key, body, algorithm).digest()).decode()


def hex_digest(text: str, algorithm: str) -> str:
    """A plain digest in lower-case hexadecimal."""
    # MD5 is what the older TRTC's callbacks are signed with; nothing of ours rests on it.
    return hashlib.new(algorithm, text.encode(), usedforsecurity=False).hexdigest()


def signed_by_header(
    name: str, content: Mapping[str, object], keys: Sequence[SigningKey], algorithm: str, **more: str
) -> Request:
    """A request whose header `name` is the HMAC of its body."""
    body = compact(content).encode()
    return Request({**JSON_HEADERS, name: base64_hmac(vendor_key(keys), body, algorithm), **more}, body)


def compact(content: Mapping[str, object]) -> str:
    """JSON without spaces, in the order of the mapping, in UTF-8 and not in escapes."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def check_number(vendor_app_id: str, name: str, largest: int) -> None:
    """Raises ValueError unless it is a positive number up to `largest` in decimal digits."""
    if not _NUMBER.fullmatch(vendor_app_id) or int(vendor_app_id) > largest:
        raise ValueError(f"{name} is a number from 1 to {largest}, and not {vendor_app_id!r}")


def seconds(time: Timestamp) -> int:
    """Unix seconds."""
    return time.seconds


def milliseconds(time: Timestamp) -> int:
    """Unix milliseconds, fractions cut off."""
    return time.ToMilliseconds()
