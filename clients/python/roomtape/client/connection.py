"""Channels to a server: where it is, how to trust it, who we are.

gRPC's core writes a line to standard error for every connection that a server closes; programs that don't
want them set `GRPC_VERBOSITY=ERROR` in their environment before the first import of `grpc`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from grpc import aio

__all__ = ["Endpoint", "TlsSettings"]

# A publisher's session is held for 30 s after its connection broke, so a dead one must be found well before
# that; servers may refuse pings that come more often than every 10 s.
KEEPALIVE_TIME_MS = 15_000
KEEPALIVE_TIMEOUT_MS = 10_000

# A restarted server is back within a second or two, and callers wait for it.
FIRST_RECONNECT_MS = 100
LONGEST_RECONNECT_MS = 5_000

# Everything about a task with thousands of segments is one message.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # What gRPC really waits for an answer to a ping; a minute by default, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # A watch of a quiet application has no data between its bookmarks.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MS),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How to trust the server, and what to show it. All certificates and keys are PEM."""

    root_certificates: bytes | None = None
    """Who may sign the server's certificate. Default: the roots that come with gRPC."""

    certificate_chain: bytes | None = None
    """Our own certificate, for servers that ask for one."""

    private_key: bytes | None = field(default=None, repr=False)
    """The key of `certificate_chain`."""

    server_name: str = ""
    """The name that the server's certificate must have. Default: the host of the target."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and how to reach it. `target` is `host:port` or any gRPC target."""

    target: str
    api_key: str | None = field(default=None, repr=False)
    tls: TlsSettings | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def open(self, interceptors: Sequence[aio.ClientInterceptor] = (), target: str = "") -> aio.Channel:
        """A channel for asyncio, to another `target` if given; nothing is sent before the first call."""
        if self.tls is None:
            return aio.insecure_channel(target or self.target, self._options(), interceptors=interceptors)
        return aio.secure_channel(
            target or self.target, self._credentials(self.tls), self._options(), interceptors=interceptors
        )

    def open_sync(self) -> grpc.Channel:
        """A channel for threads; nothing is sent before the first call."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, self._options())
        return grpc.secure_channel(self.target, self._credentials(self.tls), self._options())

    def _options(self) -> tuple[tuple[str, int | str], ...]:
        if self.tls is None or not self.tls.server_name:
            return _OPTIONS
        return (*_OPTIONS, ("grpc.ssl_target_name_override", self.tls.server_name))

    def _credentials(self, tls: TlsSettings) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
