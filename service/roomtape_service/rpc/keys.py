"""API keys: who calls, out of the metadata of a call.

Only the SHA-256 of a key is known to the server. A key is a random string of the operator's, so a plain hash
is enough: there is no password to guess.
"""

import hashlib
from collections.abc import Iterable, Sequence

from roomtape.v1 import error_pb2
from roomtape_service.errors import Refusal
from roomtape_service.rpc.call import EVERY_APPLICATION, Caller
from roomtape_service.settings import ApiKey

__all__ = ["AUTHORIZATION_KEY", "ApiKeys"]

AUTHORIZATION_KEY = "authorization"

_SCHEME = "bearer "
_MISSING = "Send the API key as metadata `authorization: Bearer <key>`."


class ApiKeys:
    """The known keys. Without any, every call may reach every application."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._callers = {
            key.sha256: EVERY_APPLICATION if "*" in key.applications else Caller(frozenset(key.applications))
            for key in keys
        }

    def caller(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Caller:
        """Who calls. Raises Refusal API_KEY_INVALID when there are keys and the metadata has none of them."""
        if not self._callers:
            return EVERY_APPLICATION
        for name, value in metadata or ():
            if name == AUTHORIZATION_KEY:
                return self._of(value if isinstance(value, str) else value.decode("ascii", "replace"))
        raise Refusal(error_pb2.ERROR_REASON_API_KEY_INVALID, f"The call has no API key. {_MISSING}")

    def _of(self, value: str) -> Caller:
        if value[: len(_SCHEME)].lower() != _SCHEME:
            raise Refusal(
                error_pb2.ERROR_REASON_API_KEY_INVALID,
                f"The metadata `authorization` has no bearer key. {_MISSING}",
            )
        digest = hashlib.sha256(value[len(_SCHEME) :].strip().encode()).hexdigest()
        caller = self._callers.get(digest)
        if caller is None:
            raise Refusal(error_pb2.ERROR_REASON_API_KEY_INVALID, "The server does not know this API key.")
        return caller
