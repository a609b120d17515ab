"""Which keys a bucket is reached with, when they may change while the server runs.

1. A store asks its `KeyRing` before each call; the answer is at hand except when something is read anew.
2. A source is read anew when what it is made of changed, before what it gave expires, and when a store refused its
   keys. Only one read of a source runs at a time. `RenewedCredentials` looks at it also while nothing asks a store.
3. When a read fails, keys that are still valid go on being used, and it is tried again in a while.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.storage.store import CredentialsRefused, StoreError

__all__ = [
    "CredentialSources",
    "FixedKeys",
    "KeyReader",
    "KeyRing",
    "Keys",
    "SourceKeys",
]

_READ_AHEAD_NS = 600 * NANOSECONDS
"""Keys are read anew this long before they expire, or after two thirds of their time where that is later."""
_RETRY_NS = 30 * NANOSECONDS
"""After a read that failed, while older keys still work."""
_LEAST_INTERVAL_NS = 5 * NANOSECONDS
"""A store that refuses everything must not make its source be read for each call."""
_ALL = "*"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    """Of an account. `session_token` is empty for lasting keys, `expire_ns` None where nobody said."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expire_ns: int | None = None
    """UTC nanoseconds."""


class KeyRing(Protocol):
    """Keys of one store."""

    async def keys(self) -> Keys:
        """Those to use now. Raises StoreError."""
        ...

    async def renewed(self, refused: Keys) -> bool:
        """A store refused these keys: are there others now?"""
        ...


class KeyReader(Protocol):
    """How a source is read."""

    async def is_changed(self) -> bool:
        """Whether what it is made of changed since the last read. Cheap: asked before each call to a store."""
        ...

    async def read(self) -> Keys:
        """The keys that it gives now. Raises StoreError."""
        ...


class FixedKeys:
    """Keys out of settings. They are not used after their time."""

    def __init__(self, keys: Keys, clock: Clock | None = None) -> None:
        self._keys = keys
        self._clock = clock

    async def keys(self) -> Keys:
        expire_ns = self._keys.expire_ns
        if expire_ns is not None and self._clock is not None and self._clock.now_ns() >= expire_ns:
            raise CredentialsRefused(
                "CredentialsExpired",
                "The temporary credentials have expired. Set new ones with UpdateApplication; files wait until then.",
            )
        return self._keys

    async def renewed(self, refused: Keys) -> bool:
        return False


class SourceKeys:
    """Keys out of a source of the operator's, shared by all stores that use it."""

    def __init__(self, name: str, reader: KeyReader, clock: Clock) -> None:
        self._name = name
        self._reader = reader
        self._clock = clock
        self._keys: Keys | None = None
        self._read_ns = 0
        self._due_ns = 0
        self._reads = 0
        self._renewals = 0
        self._error: StoreError | None = None
        self._lock = asyncio.Lock()

    @property
    def failing_until_ns(self) -> int | None:
        """When the keys in hand expire, if they can't be read anew at present."""
        return self._keys.expire_ns if self._keys and self._error else None

    @property
    def name(self) -> str:
        """The source's."""
        return self._name

    async def look(self) -> int:
        """Reads the source anew if it has to be, though no store asks. Returns how often it gave other keys so far.

        What nobody asked for yet is not read.
        """
        if self._reads and await self._has_changed():
            async with self._lock:
                await self._read()
        return self._renewals

    async def keys(self) -> Keys:
        reads = self._reads
        if await self._is_due():
            async with self._lock:
                # Who waited has what was read meanwhile, or its error.
                if self._reads == reads:
                    await self._read()
        if self._keys is None:
            assert self._error is not None
            raise self._error
        return self._keys

    async def renewed(self, refused: Keys) -> bool:
        async with self._lock:
            if self._keys == refused and self._clock.now_ns() - self._read_ns >= _LEAST_INTERVAL_NS:
                await self._read()
        return self._keys is not None and self._keys != refused

    async def _has_changed(self) -> bool:
        is_failing = self._error is not None and self._clock.now_ns() >= self._due_ns
        return is_failing or await self._reader.is_changed()

    async def _is_due(self) -> bool:
        return self._keys is None or self._clock.now_ns() >= self._due_ns or await self._reader.is_changed()

    async def _read(self) -> None:
        """Reads once; what comes of it is in `_keys` and `_error`."""
        now_ns = self._clock.now_ns()
        self._read_ns = now_ns
        try:
            try:
                keys = await self._reader.read()
            finally:
                self._reads += 1
            if keys.expire_ns is not None and keys.expire_ns <= now_ns:
                raise CredentialsRefused(
                    "CredentialsExpired",
                    f"What the credential source {self._name!r} gives has expired. The server's operator must look "
                    "after what keeps it current.",
                )
        except StoreError as error:
            self._error = error
            self._due_ns = now_ns + _RETRY_NS
            _log.warning("credential_source_failed", source=self._name, code=error.code, error=error.message)
            if self._keys is None or (self._keys.expire_ns is not None and self._keys.expire_ns <= now_ns):
                self._keys = None
            return
        if keys != self._keys and self._reads > 1:
            self._renewals += 1
            _log.info("credentials_renewed", source=self._name, expire_ns=keys.expire_ns)
        self._keys = keys
        self._error = None
        self._due_ns = _due_ns(now_ns, keys.expire_ns)


class CredentialSources:
    """All sources of a server."""

    def __init__(self, sources: Iterable["Source"] = ()) -> None:
        self._sources = {source.name: source for source in sources}

    @property
    def all(self) -> Sequence[SourceKeys]:
        """Of every source."""
        return [source.keys for source in self._sources.values()]

    def usable(self, app_id: str) -> Sequence[str]:
        """Names of the sources that the application may use."""
        return sorted(name for name, source in self._sources.items() if source.is_for(app_id))

    def ring(self, name: str, app_id: str) -> KeyRing:
        """The keys of a source; those of one that the application may not use any more are refused when asked for."""
        source = self._sources.get(name)
        if source is None or not source.is_for(app_id):
            return _NoKeys(name)
        return source.keys

    def failing_until_ns(self, name: str) -> int | None:
        """When the source's keys expire, if they can't be read anew at present (UTC nanoseconds)."""
        source = self._sources.get(name)
        return source.keys.failing_until_ns if source else None


@dataclass(frozen=True, slots=True)
class Source:
    """A source by name and the applications that may use it, `*` for all."""

    name: str
    applications: frozenset[str]
    keys: SourceKeys

    def is_for(self, app_id: str) -> bool:
        """Whether the application may use it."""
        return _ALL in self.applications or app_id in self.applications


class _NoKeys:
    def __init__(self, name: str) -> None:
        self._name = name

    async def keys(self) -> Keys:
        raise CredentialsRefused(
            "CredentialSourceMissing",
            f"The credential source {self._name!r} is gone, or no longer for this application. The server's operator "
            "must put it back (`credential_sources`), or other credentials must be set.",
        )

    async def renewed(self, refused: Keys) -> bool:
        return False


def _due_ns(now_ns: int, expire_ns: int | None) -> int:
    if expire_ns is None:
        return 1 << 63
    return max(expire_ns - _READ_AHEAD_NS, now_ns + (expire_ns - now_ns) * 2 // 3)
