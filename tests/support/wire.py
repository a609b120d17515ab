"""A server that writes down what S3 clients send, and answers as if all was well."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Object:
    sha256: str
    parts: dict[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(self.parts.values())


Fault = Callable[[web.Request], web.Response | None]
"""Answers in place of the server, or not; it sees each request after it was carried out."""


@asynccontextmanager
async def wire_server(
    folder: Path, names: Sequence[str], fault: Fault = lambda request: None
) -> AsyncIterator[WireServer]:
    """Serves while the block runs, for the host names `names`."""
    certificates = make_certificates(folder, names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    requests: list[WireRequest] = []
    objects: dict[str, _Object] = {}

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        requests.append(WireRequest(request.method, request.raw_path, headers, body))
        answer = _answer(request, body, objects)
        return fault(request) or answer

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


def _answer(request: web.Request, body: bytes, objects: dict[str, _Object]) -> web.Response:
    path, query = request.path, request.query
    if "uploads" in query or (request.method == "PUT" and "partNumber" not in query):
        objects[path] = _Object(request.headers.get("x-amz-meta-sha256", ""))
    stored = objects.setdefault(path, _Object(""))
    match request.method:
        case "PUT":
            stored.parts[query.get("partNumber", "whole")] = len(body)
            return web.Response(headers={"ETag": f'"etag-{query.get("partNumber", "whole")}"'})
        case "POST" if "uploads" in query:
            result = "<UploadId>upload-1</UploadId>"
            return _xml(f"<InitiateMultipartUploadResult>{result}</InitiateMultipartUploadResult>")
        case "POST":
            return _xml("<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>")
        case "GET" if "uploads" in query:
            return _xml("<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        case "GET" if "prefix" in query:
            return _xml("<ListBucketResult></ListBucketResult>")
        case "GET":
            return web.Response(status=206, body=b"12345")
        case "HEAD":
            return web.Response(
                headers={"Content-Length": str(stored.size_bytes), "x-amz-meta-sha256": stored.sha256}
            )
        case _:
            return web.Response(status=204)


def _xml(text: str) -> web.Response:
    return web.Response(text=_XML + text, content_type="application/xml")
