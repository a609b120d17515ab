"""Resume tokens: a place in one application's log, as text that callers keep."""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from roomtape.v1 import error_pb2
from roomtape_service.errors import FieldViolation, Refusal

__all__ = ["ResumeToken", "decode", "encode", "encode_snapshot", "unreadable"]

# Version, epoch, sequence, check. 23 bytes are 31 characters of base64; the contract allows 128.
_LAYOUT = struct.Struct(">B8sq6s")
_VERSION = 1
_CHECK_BYTES = 6
# In the place of a sequence: there is no place in the log yet.
_SNAPSHOT = -1
_FOREIGN = "is no resume token of this application; send one as it was received"


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """After the event `sequence` of the log `epoch` (16 hexadecimal digits); or before a snapshot."""

    epoch: str
    sequence: int

    @property
    def is_snapshot(self) -> bool:
        """Whether it leads to a snapshot, and to no place in the log."""
        return self.sequence == _SNAPSHOT


def encode(epoch: str, app_id: str, sequence: int) -> str:
    """The token of a place; it is good for this application only."""
    packed = _LAYOUT.pack(
        _VERSION, bytes.fromhex(epoch), sequence, _check(bytes.fromhex(epoch), app_id, sequence)
    )
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def encode_snapshot(epoch: str, app_id: str) -> str:
    """The token of who was promised a snapshot and did not get all of it."""
    return encode(epoch, app_id, _SNAPSHOT)


def decode(token: str, app_id: str) -> ResumeToken:
    """What `encode` was given. Raises Refusal INVALID_RESUME_TOKEN, also for another application's token."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, epoch, sequence, check = _LAYOUT.unpack(packed)
    except (binascii.Error, ValueError, struct.error):
        raise unreadable(_FOREIGN) from None
    if version != _VERSION or sequence < _SNAPSHOT or check != _check(epoch, app_id, sequence):
        raise unreadable(_FOREIGN)
    return ResumeToken(epoch.hex(), sequence)


def _check(epoch: bytes, app_id: str, sequence: int) -> bytes:
    text = b"%s/%s/%d" % (epoch, app_id.encode(), sequence)
    return hashlib.blake2b(text, digest_size=_CHECK_BYTES).digest()


def unreadable(text: str) -> Refusal:
    """INVALID_RESUME_TOKEN; `text` says what is wrong with `resume_token`, and what to do."""
    return Refusal(
        error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN,
        f"resume_token: {text}",
        metadata={"field": "resume_token"},
        fields=[FieldViolation("resume_token", text)],
    )
