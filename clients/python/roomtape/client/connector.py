"""Where Publish streams are opened: at the client's own server, or at those that redirects name."""

from grpc import aio

from roomtape.client.connection import Endpoint
from roomtape.client.publish_stream import OpenPublish
from roomtape.client.running import RunningStreams
from roomtape.v1.ingest_pb2_grpc import IngestServiceStub

__all__ = ["Connector"]


class Connector:
    """Owns the channels to other servers; that to the client's own belongs to the client."""

    def __init__(self, endpoint: Endpoint, home: aio.Channel, running: RunningStreams) -> None:
        self._endpoint = endpoint
        self._home = home
        self._running = running
        self._others: dict[str, aio.Channel] = {}

    def at(self, target: str) -> OpenPublish:
        """How to open a stream at `target`, with the key and the trust of the client; empty: its own server.

        Raises ClientClosed.
        """
        self._running.check()
        stub = IngestServiceStub(self._channel(target))
        return lambda: self._running.add(stub.Publish(metadata=self._endpoint.metadata))

    async def aclose(self) -> None:
        """Closes the channels that redirects made."""
        for channel in self._others.values():
            await channel.close()
        self._others.clear()

    def _channel(self, target: str) -> aio.Channel:
        if not target:
            return self._home
        if target not in self._others:
            self._others[target] = self._endpoint.open(target=target)
        return self._others[target]
