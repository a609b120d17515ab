"""A process that calls a unary method as fast as it can: `python -m tests.bench.callers TARGET METHOD`.

The first line of stdin is the request in hexadecimal; each further one a number of seconds, answered with how many
calls were answered in that time.
"""

import asyncio
import json
import os
import sys
import time

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import uvloop
from grpc import aio

__all__ = ["IN_FLIGHT"]

IN_FLIGHT = 64
"""Calls of the process that wait for their answer at any time."""

_CONNECTIONS = 4


async def _run(target: str, method: str) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [aio.insecure_channel(target, options=options) for _ in range(_CONNECTIONS)]
    methods: list[aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
        channel.unary_unary(method) for channel in channels
    ]
    loop = asyncio.get_running_loop()
    request = bytes.fromhex(await loop.run_in_executor(None, sys.stdin.readline))
    await asyncio.gather(*(call(request) for call in methods))
    print(json.dumps({"connected": len(channels)}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        end = time.monotonic() + float(line)
        started = time.monotonic()

        async def again(index: int, end: float = end) -> int:
            call, count = methods[index % _CONNECTIONS], 0
            while time.monotonic() < end:
                await call(request)
                count += 1
            return count

        calls = sum(await asyncio.gather(*(again(index) for index in range(IN_FLIGHT))))
        elapsed = time.monotonic() - started
        print(json.dumps({"calls": calls, "seconds": elapsed}), flush=True)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    uvloop.run(_run(*sys.argv[1:]))
