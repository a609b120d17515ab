"""A task's manifest and objects as a server gives them: by playback URLs, without rights in the store."""

import asyncio
import hashlib
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from roomtape.client import Client, RoomtapeError
from roomtape.v1 import file_pb2
from roomtape_service.cli.calling import CommandError
from roomtape_service.manifest.model import File, Manifest
from roomtape_service.manifest.verification import NotThere

__all__ = ["ServedObjects", "fetch_manifest"]

_SILENCE_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 5
"""The manifest of a running task may be written again between the question where it is and its download."""


async def fetch_manifest(client: Client, app_id: str, task_id: str, ca: Path | None) -> tuple[bytes, str]:
    """A task's manifest, and the SHA-256 that the server has of it. Raises CommandError, RoomtapeError."""
    request = file_pb2.GetManifestRequest(app_id=app_id, task_id=task_id)
    before = ""
    for _ in range(_ATTEMPTS):
        reply = await client.files.GetManifest(request)
        sha256 = reply.manifest.sha256
        try:
            data = await asyncio.to_thread(_read, reply.playback_url, ca)
        except (OSError, HTTPException) as error:
            raise CommandError(f"the manifest can't be fetched: {error}") from error
        # What differs twice from the same answer was not written meanwhile, but changed in the store.
        if hashlib.sha256(data).hexdigest() == sha256 or sha256 == before:
            return data, sha256
        before = sha256
    raise CommandError("the manifest changes faster than it can be fetched; try again")


class ServedObjects:
    """Fetches each file by a playback URL."""

    def __init__(self, client: Client, app_id: str, ca: Path | None) -> None:
        self._client = client
        self._app_id = app_id
        self._ca = ca

    async def fetch(self, file: File, scratch: Path) -> Path:
        """See Objects."""
        request = file_pb2.CreatePlaybackUrlRequest(app_id=self._app_id, file_id=file.file_id)
        path = scratch / "object"
        try:
            playback = await self._client.files.CreatePlaybackUrl(request)
            await asyncio.to_thread(_save, playback.url, path, self._ca)
        except RoomtapeError as error:
            raise NotThere(f"the server does not give it: {error.message}") from error
        except urllib.error.HTTPError as error:
            raise NotThere(f"it is not there: {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise NotThere(f"it can't be fetched: {error}") from error
        return path

    async def unnamed(self, manifest: Manifest) -> Sequence[str]:
        """See Objects: a server lists no stores."""
        return ()


def _read(url: str, ca: Path | None) -> bytes:
    with urllib.request.urlopen(url, timeout=_SILENCE_SECONDS, context=_context(url, ca)) as source:
        return bytes(source.read())


def _save(url: str, path: Path, ca: Path | None) -> None:
    with (
        urllib.request.urlopen(url, timeout=_SILENCE_SECONDS, context=_context(url, ca)) as source,
        path.open("wb") as sink,
    ):
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)


def _context(url: str, ca: Path | None) -> ssl.SSLContext | None:
    if not url.startswith("https:"):
        return None
    # A bucket's URL is the vendor's, whoever signed the server's certificate.
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context
