"""A process that reads streams of so many messages: `python -m tests.bench.replayer TARGET METHOD MESSAGES`.

The first line of stdin is the request in hexadecimal; each further one opens a stream, and is answered with the seconds
from then until all messages have come.
"""

import asyncio
import json
import os
import sys
import time

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# As the client's README says to those who read long histories: a read costs half as much.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")

import uvloop
from grpc import aio

__all__: list[str] = []


async def _run(target: str, method: str, messages: int) -> None:
    loop = asyncio.get_running_loop()
    request = bytes.fromhex(await loop.run_in_executor(None, sys.stdin.readline))
    async with aio.insecure_channel(target) as channel:
        watch: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        while await loop.run_in_executor(None, sys.stdin.readline):
            started = time.monotonic()
            call = watch(request)
            for _ in range(messages):
                if not isinstance(await call.read(), bytes):
                    raise RuntimeError("the stream ended early")
            print(json.dumps({"seconds": time.monotonic() - started}), flush=True)
            call.cancel()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
