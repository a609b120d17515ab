"""Bodies arrive as they are, also where only a piece of one fits into a connection, and are not copied in whole."""

import hashlib
import io
import random
import tracemalloc

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from roomtape_service.storage.body import Body

SIZE_BYTES = (8 << 20) + 7


async def test_it_arrives_without_a_second_one_in_memory() -> None:
    data = random.Random(1).randbytes(SIZE_BYTES)
    arrived = hashlib.sha256()
    lengths = []

    async def take(request: web.Request) -> web.Response:
        lengths.append(request.content_length)
        async for chunk in request.content.iter_any():
            arrived.update(chunk)
        return web.Response()

    application = web.Application()
    application.router.add_put("/", take)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        tracemalloc.start()
        try:
            async with session.put(server.make_url("/"), data=Body(data)) as answer:
                assert answer.status == web.HTTPOk.status_code
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert lengths == [SIZE_BYTES]
    assert arrived.digest() == hashlib.sha256(data).digest()
    assert most_bytes < SIZE_BYTES / 2


def test_it_is_read_as_a_file_is() -> None:
    data = bytes(range(10))
    body, file = Body(data), io.BytesIO(data)
    assert len(body) == len(data)
    assert body.read(4) == file.read(4)
    assert body.tell() == file.tell() == 4
    assert body.read(100) == file.read(100)
    assert body.read(1) == file.read(1) == b""
    assert body.seek(-3, io.SEEK_END) == file.seek(-3, io.SEEK_END)
    assert body.read() == file.read()
    assert body.seek(2) == file.seek(2)
    assert body.seek(1, io.SEEK_CUR) == file.seek(1, io.SEEK_CUR)
    assert body.read() == file.read() == data[3:]
