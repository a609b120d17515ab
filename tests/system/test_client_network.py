"""Connections that stay up and carry nothing: pings find them well within the 30 s that a session is held."""

import time

import pytest

from roomtape.client import Client
from roomtape.v1 import ingest_pb2, media_pb2
from tests.client.proxy import tcp_proxy
from tests.client.scripted import Play, events, hang, scripted_server

pytestmark = pytest.mark.system

FRAME = bytes(1920)


async def test_a_frozen_connection_is_left() -> None:
    offer = ingest_pb2.TrackOffer(
        track_id="audio", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1
    )
    async with scripted_server() as server, tcp_proxy(server.target) as proxy:
        server.watching.events = events(2)
        server.watching.plays.extend([Play(count=1, end=hang), Play()])
        async with (
            Client(f"127.0.0.1:{proxy.port}") as client,
            client.watch_events("app", after="0") as watch,
            client.publisher("app", "room", "user", [offer]) as publisher,
        ):
            assert (await anext(watch)).sequence == 1
            await publisher.publish("audio", FRAME)
            await publisher.flush()
            proxy.freeze()
            begun = time.monotonic()
            await publisher.publish("audio", FRAME)
            await publisher.flush()
            assert 1 < time.monotonic() - begun < 28
            assert (await anext(watch)).sequence == 2
            assert time.monotonic() - begun < 30
        assert proxy.connections == 2
        assert len(server.ingest.payloads(publisher.publish_session_id)) == 2
