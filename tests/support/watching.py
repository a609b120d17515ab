"""A real server with the watch service, and watchers on real channels."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from roomtape.v1 import event_pb2_grpc
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from roomtape_service.events.log import EventLog
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.server import RpcServer
from roomtape_service.rpc.watch import WatchService, WatchSettings
from roomtape_service.settings import parse

__all__ = ["WatchServer", "refusal", "serving"]


@dataclass(frozen=True, slots=True)
class WatchServer:
    """A running server."""

    log: EventLog
    watch: WatchService
    server: RpcServer
    target: str

    @asynccontextmanager
    async def stub(self) -> AsyncIterator["event_pb2_grpc.WatchServiceAsyncStub"]:
        """A stub on a channel of its own."""
        # Channels of one process share their connections unless they are told not to.
        async with aio.insecure_channel(
            self.target, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            yield event_pb2_grpc.WatchServiceStub(channel)


@asynccontextmanager
async def serving(
    database: Database,
    folder: Path,
    *,
    settings: WatchSettings | None = None,
    tail_events: int = 1024,
) -> AsyncIterator[WatchServer]:
    """Serves the events of an open database while the block runs."""
    log = EventLog(database, tail_events=tail_events)
    watch = WatchService(database, log, Random(7), settings)
    server = RpcServer(
        parse({"data_dir": str(folder), "listen": "127.0.0.1:0", "drain_seconds": 5}),
        [watch.register],
        [watch.drain],
        SystemClock(),
        CountedIds(),
    )
    await log.start()
    await server.start()
    try:
        yield WatchServer(log, watch, server, f"127.0.0.1:{server.port}")
    finally:
        await server.aclose()
        await log.aclose()


def refusal(error: aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and metadata of an error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, error.details()
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR))
    return error.code(), info.reason, dict(info.metadata)
