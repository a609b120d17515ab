"""The least that grpc.aio needs to answer a call, or to tell many watchers: `python -m tests.bench.bare`.

It prints its port, and serves until stdin ends. `Echo` answers with what it got; `Watch` streams every message that
`Tell` brings; `Replay` streams as many messages of such a size as its request says. Like the node it runs on uvloop; it
checks nothing, logs nothing and keeps nothing.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import uvloop
from grpc import aio

from roomtape.v1 import task_pb2

__all__ = ["ECHO", "REPLAY", "TELL", "WATCH"]

_SERVICE = "bench.Bare"
ECHO = f"/{_SERVICE}/Echo"
REPLAY = f"/{_SERVICE}/Replay"
TELL = f"/{_SERVICE}/Tell"
WATCH = f"/{_SERVICE}/Watch"

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    # Without these the core cancels watchers who come all at once.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)


class _Bare:
    """One message at a time, and one event that is replaced when it was set: no queues."""

    def __init__(self) -> None:
        self._message = b""
        self._told = asyncio.Event()

    async def echo(self, request: task_pb2.DescribeTaskInfoRequest, _context: object) -> object:
        return request

    async def tell(self, request: bytes, _context: object) -> bytes:
        self._message = request
        told, self._told = self._told, asyncio.Event()
        told.set()
        return b""

    async def watch(self, _request: bytes, _context: object) -> AsyncIterator[bytes]:
        told = self._told
        # The first message says that the watcher is waiting.
        yield b""
        while True:
            await told.wait()
            told = self._told
            yield self._message

    async def replay(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> None:
        messages, size = (int(word) for word in request.split())
        message = b"\0" * size
        for _ in range(messages):
            await context.write(message)


async def _serve() -> None:
    bare = _Bare()
    server = aio.server(options=_OPTIONS)
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            bare.echo,
            request_deserializer=task_pb2.DescribeTaskInfoRequest.FromString,
            response_serializer=task_pb2.DescribeTaskInfoRequest.SerializeToString,
        ),
        "Tell": grpc.unary_unary_rpc_method_handler(bare.tell),
        "Watch": grpc.unary_stream_rpc_method_handler(bare.watch),
        "Replay": grpc.unary_stream_rpc_method_handler(bare.replay),
    }
    server.add_registered_method_handlers(_SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve())
