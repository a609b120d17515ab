"""How each type of credential source is read."""

import asyncio
import configparser
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.settings_sources import (
    CredentialSource,
    EnvironmentSource,
    FileSource,
    WebIdentitySource,
)
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.credentials import CredentialSources, KeyReader, Keys, Source, SourceKeys
from roomtape_service.storage.store import CredentialsRefused
from roomtape_service.storage.web_identity import WebIdentityReader

__all__ = ["EnvironmentReader", "FileReader", "make_sources"]

_MAX_FILE_BYTES = 64 << 10
_LOOK_NS = NANOSECONDS
"""How often a file is looked at for changes."""

_NOT_LETTERS = re.compile(r"[^a-z]")
_PREFIX = re.compile(r"\A(?:aws|x)")
# What the names of entries become without case, punctuation and prefix.
_IDS = ("accesskeyid", "accesskey", "secretid")
_SECRETS = ("secretaccesskey", "secretkey", "accesskeysecret")
_TOKENS = ("sessiontoken", "securitytoken", "token")
_EXPIRIES = ("expiration", "expiretime", "expires", "securitytokenexpires", "credentialexpiration")


def make_sources(
    settings: Iterable[CredentialSource], clients: S3Clients, clock: Clock, environment: Mapping[str, str]
) -> CredentialSources:
    """The sources of the operator's settings. Nothing is read yet."""

    def reader(source: CredentialSource) -> KeyReader:
        match source:
            case FileSource():
                return FileReader(source.name, source.path, clock)
            case EnvironmentSource():
                return EnvironmentReader(source, environment)
            case WebIdentitySource():
                return WebIdentityReader(source, clients)

    return CredentialSources(
        Source(source.name, frozenset(source.applications), SourceKeys(source.name, reader(source), clock))
        for source in settings
    )


class EnvironmentReader:
    """Variables, as they were when the server started."""

    def __init__(self, source: EnvironmentSource, environment: Mapping[str, str]) -> None:
        self._source = source
        self._environment = environment

    async def is_changed(self) -> bool:
        return False

    async def read(self) -> Keys:
        source = self._source
        names = (source.access_key_id, source.secret_access_key, source.session_token)
        missing = [name for name in names if name and not self._environment.get(name)]
        if missing:
            raise CredentialsRefused(
                "CredentialSourceUnreadable",
                f"The credential source {self._source.name!r} needs {' and '.join(missing)} in the server's "
                "environment. The operator must set it and start the server again.",
            )
        return Keys(
            self._environment[source.access_key_id],
            self._environment[source.secret_access_key],
            self._environment[source.session_token] if source.session_token else "",
        )


class FileReader:
    """A file of JSON, or of ini with one section or `[default]`. Entries are known by any of their usual names."""

    def __init__(self, name: str, path: Path, clock: Clock) -> None:
        self._name = name
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._looked_ns = 0

    async def is_changed(self) -> bool:
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns < _LOOK_NS:
            return False
        self._looked_ns = now_ns
        return await asyncio.to_thread(self._state) != self._seen

    async def read(self) -> Keys:
        try:
            text = await asyncio.to_thread(self._text)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise self._unreadable(f"can't be read: {reason}") from None
        try:
            return _keys(text)
        except _NotKeys as error:
            raise self._unreadable(str(error)) from None

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _text(self) -> str:
        # Before the content: what changes in between is read again.
        self._seen = self._state()
        with self._path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise OSError(0, f"it has more than {_MAX_FILE_BYTES} bytes")
        return data.decode("utf-8")

    def _unreadable(self, reason: str) -> CredentialsRefused:
        return CredentialsRefused(
            "CredentialSourceUnreadable",
            f"The file {self._path} of the credential source {self._name!r} {reason}. The server's operator must "
            "mend it; it is read again when it changes.",
        )


class _NotKeys(Exception):
    """A file has no keys; the text says why and repeats nothing of it."""


def _keys(text: str) -> Keys:
    entries = {_NOT_LETTERS.sub("", name.lower()): value for name, value in _entries(text).items()}
    entries |= {_PREFIX.sub("", name): value for name, value in entries.items()}
    found = [
        next((entries[name] for name in names if entries.get(name)), "")
        for names in (_IDS, _SECRETS, _TOKENS)
    ]
    if not found[0] or not found[1]:
        missing = "access_key_id" if not found[0] else "secret_access_key"
        raise _NotKeys(f"has no {missing}")
    expiry = next((entries[name] for name in _EXPIRIES if entries.get(name)), "")
    return Keys(found[0], found[1], found[2], _time_ns(expiry) if expiry else None)


def _entries(text: str) -> Mapping[str, str]:
    if text.lstrip().startswith("{"):
        try:
            parsed = json.loads(text)
        except ValueError:
            raise _NotKeys("is no JSON") from None
        return {str(name): str(value) for name, value in parsed.items() if isinstance(value, str | int)}
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        raise _NotKeys("is neither JSON nor ini") from None
    names = parser.sections()
    if "default" in names:
        return dict(parser["default"])
    if len(names) != 1:
        raise _NotKeys("has no section [default], and not exactly one other")
    return dict(parser[names[0]])


def _time_ns(text: str) -> int:
    """UTC nanoseconds out of RFC 3339, or of seconds since 1970."""
    if text.isascii() and text.isdigit():
        return int(text) * NANOSECONDS
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise _NotKeys(
            "says when it expires in no form that is known; write it as 2030-01-31T12:00:00Z"
        ) from None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return round(aware.timestamp()) * NANOSECONDS
