"""Pages of lists, by tokens that fit the call that they came from and no other.

A token holds the place after the last entry and a digest of the request without its page fields. It is not
secret, and forging one gains nothing: the application and every condition are read from the request, never
from the token.
"""

import base64
import binascii
import hashlib
import json
from typing import Protocol, TypeAlias, TypeVar, cast

from google.protobuf.message import Message

from roomtape.v1 import error_pb2
from roomtape_service.errors import field_refusal
from roomtape_service.rpc.validation import page_size, refuse

__all__ = ["DEFAULT_PAGE_SIZE", "MAX_PAGE_SIZE", "Place", "read_page", "write_token"]

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000

_DIGEST_BYTES = 12

Place: TypeAlias = tuple[str | int, ...]
"""Sort keys of the last entry of a page."""


class _Paged(Protocol):
    page_size: int
    page_token: str


_Request = TypeVar("_Request", bound=_Paged)


def read_page(request: _Paged) -> tuple[int, Place]:
    """How many entries to give, and after which place; `()` is the start.

    Raises Refusal INVALID_VALUE for a negative size, INVALID_PAGE_TOKEN for a token that `write_token` did
    not make for the same request.
    """
    refuse(page_size(request.page_size))
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    return size, _place(request) if request.page_token else ()


def write_token(request: _Paged, place: Place) -> str:
    """The token for the page after `place`. Give it only if there is such a page."""
    packed = _digest(request) + json.dumps(place, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def _place(request: _Paged) -> Place:
    token = request.page_token
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        place = json.loads(packed[_DIGEST_BYTES:])
    except (binascii.Error, ValueError):
        packed, place = b"", None
    if packed[:_DIGEST_BYTES] != _digest(request) or not _is_place(place):
        raise field_refusal(
            error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN,
            "page_token",
            "was not given by this list with these arguments; send the next_page_token of the page before with "
            "otherwise the same request, or none to start over",
        )
    return tuple(place)


def _is_place(place: object) -> bool:
    return isinstance(place, list) and bool(place) and all(type(item) in (str, int) for item in place)


def _digest(request: _Paged) -> bytes:
    message = cast("Message", request)
    conditions = type(message)()
    conditions.CopyFrom(message)
    conditions.ClearField("page_size")
    conditions.ClearField("page_token")
    digest = hashlib.sha256(message.DESCRIPTOR.full_name.encode())
    digest.update(b"\0" + conditions.SerializeToString(deterministic=True))
    return digest.digest()[:_DIGEST_BYTES]
