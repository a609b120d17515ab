"""The gRPC server of a node: options, health, reflection, TLS, and the order in which it stops."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from roomtape_service.clock import Clock
from roomtape_service.ids import Ids
from roomtape_service.rpc.interceptors import Interceptor
from roomtape_service.rpc.keys import ApiKeys
from roomtape_service.rpc.rates import RateLimit
from roomtape_service.settings import Settings, SettingsError

__all__ = ["OPTIONS", "TRANSPORT_MESSAGE_BYTES", "Register", "RpcServer"]

# The contract's limit is 4 MiB (interceptors.MAX_MESSAGE_BYTES). gRPC's core cuts a stream off at its own
# limit without telling a handler, and answers without a reason; so it is set higher, and what lies between is
# refused by us, by name.
TRANSPORT_MESSAGE_BYTES = 8 * 1024 * 1024

OPTIONS: Sequence[tuple[str, int]] = (
    # A second server on the same port must fail instead of taking half of the calls.
    ("grpc.so_reuseport", 0),
    # The core cancels at random above 1,000 waiting calls, which is every reconnection of many watchers.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # A publisher that vanished is noticed within 40 s even when nothing is sent to it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # What newer cores go by instead; without it they wait for a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
    # No max_connection_age: it would cut every Publish stream. Publishers and watchers are drained in-band.
)

# How long a step of the stop that should take no time may hang before the next one.
_STEP_SECONDS = 5.0

Register: TypeAlias = Callable[[aio.Server], None]
Drain: TypeAlias = Callable[[], Awaitable[None]]


class RpcServer:
    """Serves the given services until `aclose`.

    `services` register themselves, for example `partial(add_RoomServiceServicer_to_server, rooms)`; `drains`
    are called one after the other when the server stops, each to end the streams of one service in-band.
    """

    def __init__(
        self,
        settings: Settings,
        services: Sequence[Register],
        drains: Sequence[Drain],
        clock: Clock,
        ids: Ids,
        log: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        self._settings = settings
        self._services = services
        self._drains = drains
        self._log: structlog.typing.FilteringBoundLogger = log or structlog.get_logger("roomtape.rpc")
        self._interceptor = Interceptor(
            ApiKeys(settings.api_keys),
            RateLimit(settings.record_calls_per_second, settings.record_calls_burst, clock),
            ids,
            clock,
            self._log,
        )
        self._health = health.aio.HealthServicer()
        self._server: aio.Server | None = None
        self._closing: asyncio.Task[None] | None = None
        self.port = 0
        """The port that is listened on, once started."""

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._interceptor.running

    async def start(self) -> None:
        """Binds and serves. Raises SettingsError when the address or the TLS files can't be used."""
        server = aio.server(options=OPTIONS)
        registrar = _Registrar(server, self._interceptor)
        for register in self._services:
            registrar.register(register)
        names = registrar.names
        registrar.guarded = False
        registrar.register(lambda target: health_pb2_grpc.add_HealthServicer_to_server(self._health, target))
        listed = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(listed)
        registrar.register(lambda target: add_ServerReflectionServicer_to_server(reflected, target))  # type: ignore[no-untyped-call]
        server.add_generic_rpc_handlers((_Unknown(self._interceptor),))
        self.port = _bind(server, self._settings)
        await server.start()
        self._server = server
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._log.info("rpc_serving", host=self._settings.listen.host, port=self.port)

    async def aclose(self) -> None:
        """Stops in order and waits until every handler has returned; again and again the same."""
        if self._server is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(self._server))
        await asyncio.shield(self._closing)

    async def _close(self, server: aio.Server) -> None:
        # 1. Balancers send nothing new.
        await self._step("health", self._health.enter_graceful_shutdown())
        # 2. What comes all the same is told to come again, elsewhere or later.
        self._interceptor.drain()
        # 3. Watchers get their last bookmark, publishers their goodbye, and their streams end.
        for drain in self._drains:
            await self._step("drain", drain(), self._settings.drain_seconds + _STEP_SECONDS)
        # 4. Running calls finish. `server.stop` would return before their `finally`.
        await self._step("calls", self._interceptor.idle(), self._settings.drain_seconds)
        # 5. The rest is cancelled, and every connection ends.
        await server.stop(None)
        # 6. Nothing of a handler runs any more when the caller goes on to close what handlers use.
        await self._step("cancelled", self._interceptor.idle())
        self._log.info("rpc_stopped")

    async def _step(self, name: str, step: Awaitable[None], seconds: float = _STEP_SECONDS) -> None:
        try:
            await asyncio.wait_for(step, seconds)
        except TimeoutError:
            self._log.warning("rpc_stop_slow", step=name, seconds=seconds, running=self.running)
        except Exception:
            self._log.exception("rpc_stop_failed", step=name)


class _Registrar:
    """Stands in for the server when generated code registers a servicer, and wraps its handlers."""

    def __init__(self, server: aio.Server, interceptor: Interceptor) -> None:
        self._server = server
        self._interceptor = interceptor
        self.guarded = True
        self.names: tuple[str, ...] = ()

    def register(self, register: Register) -> None:
        register(cast("aio.Server", self))

    def add_generic_rpc_handlers(self, _handlers: Sequence[object]) -> None:
        """The same handlers come by the other method too."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        self.names = (*self.names, service)
        self._server.add_registered_method_handlers(
            service,
            {
                name: self._interceptor.wrap(f"/{service}/{name}", handler, guarded=self.guarded)
                for name, handler in handlers.items()
            },
        )


class _Unknown(grpc.GenericRpcHandler):
    """Asked last: answers methods that nothing was registered for."""

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return self._interceptor.unknown(handler_call_details.method)


def _bind(server: aio.Server, settings: Settings) -> int:
    address = str(settings.listen)
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    try:
        if certificate is None or key is None:
            return server.add_insecure_port(address)
        credentials = grpc.ssl_server_credentials([(_pem(key), _pem(certificate))])
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        problem = (
            f"listen: {address} can't be bound; is another server there, and are the TLS files in order?"
        )
        raise SettingsError([problem]) from None


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError([f"{path}: can't be read for TLS: {error.strerror}"]) from None
