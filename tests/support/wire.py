"""A server that writes down what S3 clients send, and answers as if all was well."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.support.certificates import make_certificates

__all__ = ["WireRequest", "WireServer", "wire_server"]

_MAX_BODY_BYTES = 64 << 20
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came: `target` with its query, headers in their order and case."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class WireServer:
    """A running server: TLS on `port`, with a certificate of `authority`."""

    port: int
    authority: Path
    requests: list[WireRequest]


@asynccontextmanager
async def wire_server(folder: Path, names: Sequence[str]) -> AsyncIterator[WireServer]:
    """Serves while the block runs, for the host names `names`."""
    certificates = make_certificates(folder, names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    requests: list[WireRequest] = []
    objects: dict[str, tuple[int, str]] = {}

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        requests.append(WireRequest(request.method, request.raw_path, headers, body))
        return _answer(request, body, objects)

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield WireServer(runner.addresses[0][1], certificates.authority, requests)
    finally:
        await runner.cleanup()


def _answer(request: web.Request, body: bytes, objects: dict[str, tuple[int, str]]) -> web.Response:
    path, query = request.path, request.query
    size, sha256 = objects.get(path, (0, ""))
    sha256 = request.headers.get("x-amz-meta-sha256", sha256)
    match request.method:
        case "PUT":
            objects[path] = (size + len(body) if "partNumber" in query else len(body), sha256)
            return web.Response(headers={"ETag": f'"etag-{query.get("partNumber", "whole")}"'})
        case "POST" if "uploads" in query:
            objects[path] = (0, sha256)
            result = "<UploadId>upload-1</UploadId>"
            return _xml(f"<InitiateMultipartUploadResult>{result}</InitiateMultipartUploadResult>")
        case "POST":
            return _xml("<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>")
        case "GET" if "uploads" in query:
            return _xml("<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        case "GET":
            return web.Response(status=206, body=b"12345")
        case "HEAD":
            return web.Response(headers={"Content-Length": str(size), "x-amz-meta-sha256": sha256})
        case _:
            return web.Response(status=204)


def _xml(text: str) -> web.Response:
    return web.Response(text=_XML + text, content_type="application/xml")
