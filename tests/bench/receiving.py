"""A receiver of webhooks, and a client that posts to it with nothing but aiohttp.

`python -m tests.bench.receiving` prints its port. To each line of stdin, a number, it answers when so many requests
have come since the line before, with when the last one came.
`python -m tests.bench.receiving <url> <parallel>` posts, for each line of stdin, {"count": …, "headers": …, "body": …},
and answers with how long that took.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial

import aiohttp
import uvloop
from aiohttp import web


async def _lines() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield line


async def _receive() -> None:
    came = 0
    changed = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        nonlocal came
        await request.read()
        came += 1
        changed.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    async for line in _lines():
        count = int(line)
        while came < count:
            changed.clear()
            await changed.wait()
        came -= count
        print(json.dumps({"last_ns": time.monotonic_ns()}), flush=True)
    await runner.cleanup()


async def _post_some(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    numbers: Iterator[int],
) -> None:
    for _ in numbers:
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()


async def _post(url: str, parallel: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        print(json.dumps({}), flush=True)
        async for line in _lines():
            order = json.loads(line)
            numbers = iter(range(order["count"]))
            started = time.monotonic()
            post = partial(_post_some, session, url, order["body"].encode(), order["headers"], numbers)
            await asyncio.gather(*(post() for _ in range(parallel)))
            print(json.dumps({"seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    uvloop.run(_post(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else _receive())
