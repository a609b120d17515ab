"""Plays files of disk stores to whoever has a signed URL that has not expired.

    <public_url>/play/<folder>/<object key>?expires=<seconds since 1970>&signature=<HMAC-SHA256>

The signature covers folder, key and time, under a key that is derived from the secret key: a URL opens one object and
says nothing about another. Buckets play by URLs of their own.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database.database import Database
from roomtape_service.database.segments import is_taken_away
from roomtape_service.settings import Settings, SettingsError
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.store import StoreError
from roomtape_service.storage.stores import Stores

__all__ = ["Playback", "content_headers"]

_PURPOSE = "playback"
_TYPES = {
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
    "json": "application/json",
}
_SHUTDOWN_SECONDS = 2.0

_log = structlog.get_logger(__name__)


def content_headers(key: str) -> dict[str, str]:
    """`Content-Type` and `Content-Disposition` of an object, by its key."""
    name = key.rpartition("/")[2]
    content_type = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    return {
        "Content-Type": content_type,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
    }


class Playback:
    """Serves from `start` to `aclose`; makes the URLs that it serves."""

    def __init__(
        self, settings: Settings, database: Database, stores: Stores, secret_box: SecretBox, clock: Clock
    ) -> None:
        self._settings = settings
        self._database = database
        self._stores = stores
        self._key = secret_box.derived_key(_PURPOSE)
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self.port = settings.http_listen.port
        """The port that is listened on, once started."""

    async def start(self) -> None:
        """Binds and serves. Raises SettingsError when the address or the TLS files can't be used."""
        app = web.Application()
        app.router.add_get("/play/{folder}/{key:.+}", self._play)
        # No access log of aiohttp's: it would keep signatures.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        address = self._settings.http_listen
        try:
            site = web.TCPSite(runner, address.host, address.port, ssl_context=self._tls())
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise SettingsError(
                [f"http_listen: {address} can't be served: {error.strerror or error}"]
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        _log.info("playback_serving", host=address.host, port=self.port)

    async def aclose(self) -> None:
        """Ends; what is being played is cut off after two seconds. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def url(self, folder: str, key: str, expire_seconds: int) -> str:
        """A URL that plays the object `key` of a disk store until `expire_seconds` after 1970."""
        signature = self._signature(folder, key, expire_seconds)
        path = f"/play/{quote(folder, safe='~')}/{quote(key, safe='/~')}"
        return f"{self._base_url()}{path}?expires={expire_seconds}&signature={signature}"

    async def _play(self, request: web.Request) -> web.StreamResponse:
        folder, key = request.match_info["folder"], request.match_info["key"]
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not _is_number(expires) or not hmac.compare_digest(
            self._signature(folder, key, int(expires)).encode(), signature.encode()
        ):
            return _refusal(HTTPStatus.FORBIDDEN, "This URL is not one that the server made.")
        if self._clock.now_ns() >= int(expires) * NANOSECONDS:
            return _refusal(HTTPStatus.FORBIDDEN, "This URL has expired. Ask for a new one.")
        store = self._stores.disk(folder)
        try:
            path = store.path(key)
        except StoreError:
            return _refusal(HTTPStatus.NOT_FOUND, "There is no such file.")
        # What has been deleted is gone at once, however long its store takes.
        gone = await self._database.read(lambda connection: is_taken_away(connection, store.identity, key))
        # In a thread, as aiohttp does: a disk that hangs must not hold up the node.
        if gone or not await asyncio.to_thread(path.is_file):
            return _refusal(HTTPStatus.NOT_FOUND, "There is no such file any more.")
        headers = content_headers(key) | {
            "Cache-Control": "private",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        kind = web.FileResponse if await _wants_range(request, path) else _WholeFile
        return kind(path, headers=headers)

    def _signature(self, folder: str, key: str, expire_seconds: int) -> str:
        text = f"{expire_seconds}\n{folder}\n{key}"
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")

    def _base_url(self) -> str:
        base = self._settings.public_url
        if self._settings.http_listen.port == 0:
            # The system chose the port; only now is it known.
            base = base.removesuffix(":0") + f":{self.port}" if base.endswith(":0") else base
        return base

    def _tls(self) -> ssl.SSLContext | None:
        certificate, key = self._settings.tls_certificate_file, self._settings.tls_key_file
        if certificate is None or key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        return context


class _WholeFile(web.FileResponse):
    """Answers as if no range had been asked for."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = request.headers.copy()
        headers.popall("Range", None)
        return await super().prepare(request.clone(headers=headers))


async def _wants_range(request: web.Request, path: Path) -> bool:
    """False when the range goes with an entity tag that is not the file's (RFC 9110, 13.1.5); times are aiohttp's."""
    condition = request.headers.get("If-Range", "")
    if '"' not in condition:
        return True
    try:
        status = await asyncio.to_thread(path.stat)
    except OSError:
        # It has gone meanwhile, which the answer says.
        return True
    return condition == f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _refusal(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers={"Cache-Control": "no-store"})
