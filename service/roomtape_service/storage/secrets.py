"""Secrets at rest, storage credentials and keys of webhooks: encrypted with a key that is not in the database.

1. The key file is 32 random bytes in base 64, made at the first start, readable by the server's user alone.
2. A secret is sealed by AES-256-GCM, bound to its application and field, so that a row moved to another application
   opens nothing there.
3. Keys for other uses are derived (HKDF), so that none says anything about another.
"""

import base64
import binascii
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from roomtape.v1 import storage_pb2

__all__ = ["SecretBox", "SecretKeyError", "keep_secrets", "load_or_create_key", "strip_secrets"]

_Storing: TypeAlias = storage_pb2.StorageSettings | storage_pb2.SecondaryStore

_KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "v1:"


class SecretKeyError(Exception):
    """The secret key can't be used, or is not the one that a value was sealed with."""


def load_or_create_key(path: Path) -> bytes:
    """The key in the file `path`, which is made with mode 0600 when it is missing. Raises SecretKeyError."""
    try:
        with suppress(FileExistsError):
            _create_key(path)
        mode = path.stat().st_mode & 0o777
        text = path.read_text("ascii")
        key = base64.b64decode(text.strip(), validate=True)
    except OSError as error:
        raise SecretKeyError(f"The key file {path} can't be read or made: {error.strerror}.") from error
    except (binascii.Error, UnicodeDecodeError) as error:
        raise SecretKeyError(
            f"The key file {path} is not base 64. Put back the file it was made as."
        ) from error
    if mode & 0o077:
        raise SecretKeyError(
            f"The key file {path} can be read by others (mode {mode:o}). Run: chmod 600 {path}"
        )
    if len(key) != _KEY_BYTES:
        raise SecretKeyError(
            f"The key file {path} has {len(key)} bytes, not {_KEY_BYTES}. Put back the file it was."
        )
    return key


class SecretBox:
    """Seals and opens secrets, those of StorageSettings above all. `key` is 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)

    def seal(self, app_id: str, settings: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
        """A copy for the database: values encrypted."""
        sealed = _copy(settings)
        for name, secret in _secrets(sealed):
            if secret.value:
                secret.value = self.seal_text(app_id, name, secret.value)
            secret.is_set = bool(secret.value)
        return sealed

    def open(self, app_id: str, sealed: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
        """A copy with the values in clear, for a store alone. Raises SecretKeyError."""
        settings = _copy(sealed)
        for name, secret in _secrets(settings):
            if secret.value:
                secret.value = self.open_text(app_id, name, secret.value)
        return settings

    def seal_text(self, app_id: str, name: str, text: str) -> str:
        """A text for the database that opens under the same application and name alone."""
        nonce = os.urandom(_NONCE_BYTES)
        data = nonce + self._cipher.encrypt(nonce, text.encode(), _binding(app_id, name))
        return _VERSION + base64.b64encode(data).decode("ascii")

    def open_text(self, app_id: str, name: str, sealed: str) -> str:
        """The text in clear. Raises SecretKeyError."""
        try:
            data = base64.b64decode(sealed.removeprefix(_VERSION), validate=True)
            binding = _binding(app_id, name)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], binding).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretKeyError(
                "Stored credentials can't be opened: the secret key is not the one they were sealed with. Put back the "
                "key file, or set the credentials again."
            ) from error

    def derived_key(self, purpose: str) -> bytes:
        """32 bytes for another purpose; they tell nothing about the key."""
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose.encode()).derive(self._key)


def strip_secrets(settings: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
    """A copy for replies: no values, only whether there are any."""
    stripped = _copy(settings)
    for _, secret in _secrets(stripped):
        secret.is_set = bool(secret.value)
        secret.value = ""
    return stripped


def keep_secrets(
    wanted: storage_pb2.StorageSettings, stored: storage_pb2.StorageSettings
) -> storage_pb2.StorageSettings:
    """A copy of `wanted` in which secrets without a value are those of `stored`, if both have the same access key.

    Both with values in clear. What a reply showed may be sent back and changes nothing.
    """
    kept = _copy(wanted)
    _keep(kept, stored)
    if kept.HasField("secondary"):
        _keep(kept.secondary, stored.secondary)
    return kept


def _keep(wanted: _Storing, stored: _Storing) -> None:
    if wanted.WhichOneof("store") == "custom":
        _keep_custom(wanted.custom, stored.custom)
    if wanted.WhichOneof("store") != "object_store" or not wanted.object_store.HasField("credentials"):
        return
    new, old = wanted.object_store.credentials, stored.object_store.credentials
    if new.access_key_id == old.access_key_id and not new.source:
        if old.secret_access_key.value and not new.secret_access_key.value:
            new.secret_access_key.value = old.secret_access_key.value
        # A token that is left out is taken away; one that a reply showed as set stays.
        if new.session_token.is_set and not new.session_token.value:
            new.session_token.value = old.session_token.value


def _keep_custom(wanted: storage_pb2.CustomStore, stored: storage_pb2.CustomStore) -> None:
    # Another kind, or another place of the same, must not get at what was meant for this one.
    if wanted.kind != stored.kind or dict(wanted.options) != dict(stored.options):
        return
    for name, secret in wanted.secrets.items():
        if secret.is_set and not secret.value and name in stored.secrets:
            secret.value = stored.secrets[name].value


def _create_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made whole under another name first: a crash in between must not leave an empty key that later starts refuse.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    if path.exists():
        return
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _secrets(settings: storage_pb2.StorageSettings) -> Iterator[tuple[str, storage_pb2.Secret]]:
    yield from _secrets_of(settings)
    if settings.HasField("secondary"):
        for name, secret in _secrets_of(settings.secondary):
            yield f"secondary.{name}", secret


def _secrets_of(settings: _Storing) -> Iterator[tuple[str, storage_pb2.Secret]]:
    if settings.WhichOneof("store") == "object_store" and settings.object_store.HasField("credentials"):
        credentials = settings.object_store.credentials
        if credentials.HasField("secret_access_key"):
            yield "secret_access_key", credentials.secret_access_key
        if credentials.HasField("session_token"):
            yield "session_token", credentials.session_token
    if settings.WhichOneof("store") == "custom":
        for name, secret in settings.custom.secrets.items():
            yield f"custom.{name}", secret


def _copy(settings: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
    copy = storage_pb2.StorageSettings()
    copy.CopyFrom(settings)
    return copy


def _binding(app_id: str, name: str) -> bytes:
    return f"{app_id}/{name}".encode()
