"""A process of many watchers: `python -m tests.bench.watchers TARGET METHOD STREAMS`.

1. The first line of stdin is the request in hexadecimal; every stream is opened with it, and `{"open": n}` is printed
   when each has had its first message.
2. Every further message is an event that goes to all. When all have it, `{"last_ns": t}` is printed, by the monotonic
   clock, which all processes of a machine share.
"""

import asyncio
import json
import os
import sys
import time

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import uvloop
from grpc import aio

__all__: list[str] = []

_CONNECTIONS = 4
# A storm of connections is not what is measured.
_OPENING_AT_ONCE = 100


class _Watchers:
    def __init__(self, target: str, method: str, streams: int, request: bytes) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [aio.insecure_channel(target, options=options) for _ in range(_CONNECTIONS)]
        self._methods: list[aio.UnaryStreamMultiCallable[bytes, bytes]] = [
            channel.unary_stream(method) for channel in self._channels
        ]
        self._request = request
        self._streams = streams
        self._missing = streams
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._open = 0
        self.opened = asyncio.Event()

    async def watch(self, index: int) -> None:
        async with self._opening:
            call = self._methods[index % _CONNECTIONS](self._request)
            await call.read()
        self._open += 1
        if self._open == self._streams:
            self.opened.set()
        while isinstance(await call.read(), bytes):
            self._missing -= 1
            if not self._missing:
                self._missing = self._streams
                print(json.dumps({"last_ns": time.monotonic_ns()}), flush=True)

    async def aclose(self) -> None:
        for channel in self._channels:
            await channel.close()


async def _run(target: str, method: str, streams: int) -> None:
    loop = asyncio.get_running_loop()
    request = bytes.fromhex(await loop.run_in_executor(None, sys.stdin.readline))
    watchers = _Watchers(target, method, streams, request)
    running = [asyncio.create_task(watchers.watch(index)) for index in range(streams)]
    await watchers.opened.wait()
    print(json.dumps({"open": streams}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await watchers.aclose()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
