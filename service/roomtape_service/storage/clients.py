"""HTTP clients of S3 servers: one for each account and endpoint, made once and shared."""

import asyncio
import os
import socket
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

import botocore
import botocore.handlers
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver

from roomtape.v1 import storage_pb2
from roomtape_service.storage.store import StoreRefused
from roomtape_service.storage.vendors import VENDORS

__all__ = ["Account", "S3Client", "S3Clients", "StsClient"]

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
# Longer than any call's patience. A connection that is given up in the middle of a body stays, with what was not sent,
# until the peer takes that or the system loses patience; a peer that lives and does not read would keep it for ever.
_UNREAD_SECONDS = 120.0
# Connections of one client; more parts than this at once only wait for each other.
_CONNECTIONS = 64
# A client that nobody uses is kept for its open connections and warm TLS; each costs about half a MiB.
_IDLE_CLIENTS = 32
# Of the event loop, in which it notices that connections were shut down, and closes them.
_LAST_TURNS = 4
# botocore would put its own together from fifteen fields, twice for each request: nearly a tenth of what a part costs
# the event loop.
_USER_AGENT = f"roomtape/{metadata.version('roomtape-service')}"


class S3Client(Protocol):
    """What we use of botocore's client; parameters and answers are those of the S3 API."""

    def put_object(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def head_object(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def get_object(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def get_object_tagging(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def delete_object(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def create_multipart_upload(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def upload_part(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def complete_multipart_upload(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def abort_multipart_upload(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def list_objects(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def list_multipart_uploads(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...
    def generate_presigned_url(
        self, method: str, *, Params: Mapping[str, object], ExpiresIn: int
    ) -> Awaitable[str]: ...


class StsClient(Protocol):
    """What we use of botocore's client for STS."""

    def assume_role_with_web_identity(self, **parameters: object) -> Awaitable[Mapping[str, object]]: ...


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that a client is made of. `endpoint` is a URL without the bucket; empty means botocore's own.

    `source` names where keys come from that are replaced from time to time: the client of those before is closed.
    """

    vendor: storage_pb2.StorageVendor.ValueType
    endpoint: str
    region: str
    path_style: bool
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    source: str = ""

    def is_successor(self, other: "Account") -> bool:
        """Whether this is the same account with newer keys of one source."""
        return bool(self.source) and self != other and self._place() == other._place()

    def _place(self) -> "Account":
        return replace(self, access_key_id="", secret_access_key="", session_token="")


@dataclass(slots=True, eq=False)
class _Entry:
    made: asyncio.Task[tuple[S3Client, "_Closing"]]
    users: int = 0
    is_old: bool = False


class _Closing(Protocol):
    async def close(self) -> None: ...


class S3Clients:
    """Clients by account, all of one session: a session of its own costs each client 60–150 ms and 11 MB.

    `resolver` and `ca_file` are for servers that the system does not know the name of or the certificate's authority.
    A connection goes when its peer took nothing for `unread_seconds`.
    """

    def __init__(
        self,
        *,
        resolver: AbstractResolver | None = None,
        ca_file: Path | None = None,
        unread_seconds: float = _UNREAD_SECONDS,
    ) -> None:
        self._resolver = resolver
        self._ca_file = ca_file
        self._unread_milliseconds = round(unread_seconds * 1000)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._session: AioSession | None = None
        self._entries: OrderedDict[Account, _Entry] = OrderedDict()
        self._warm = asyncio.Lock()

    @asynccontextmanager
    async def client(self, account: Account) -> AsyncIterator[S3Client]:
        """The account's client, which stays open while the block runs. Raises StoreRefused."""
        entry = self._entries.get(account)
        if entry is None:
            task = asyncio.create_task(self._make(account), name="s3-client")
            for other, old in self._entries.items():
                old.is_old = old.is_old or account.is_successor(other)
            entry = self._entries[account] = _Entry(task)
        self._entries.move_to_end(account)
        entry.users += 1
        try:
            try:
                client, _ = await asyncio.shield(entry.made)
            except Exception:
                if self._entries.get(account) is entry:
                    del self._entries[account]
                raise
            yield client
        finally:
            entry.users -= 1
            await self._close_idle()

    @asynccontextmanager
    async def sts_client(self, endpoint: str, region: str) -> AsyncIterator[StsClient]:
        """A client of STS that signs nothing, for the block. `endpoint` is a base URL; empty means AWS's own."""
        session = await self._warm_session()
        config = AioConfig(
            signature_version=botocore.UNSIGNED,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"max_attempts": 0},
            ignore_configured_endpoint_urls=True,
            connector_args=self._connector_args(),
        )
        async with session.create_client(
            "sts",
            region_name=region,
            endpoint_url=endpoint or None,
            config=config,
            verify=str(self._ca_file) if self._ca_file else None,
        ) as client:
            yield cast(StsClient, client)

    @property
    def open_clients(self) -> int:
        """How many clients are open."""
        return len(self._entries)

    async def aclose(self) -> None:
        """Closes all clients; calls that are running fail."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            await _close(entry)
        # A connection that was given up in the middle of a body would stay open for what its peer did not take.
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)

    async def _close_idle(self) -> None:
        idle = [account for account, entry in self._entries.items() if not entry.users]
        old = [account for account in idle if self._entries[account].is_old]
        # All at once, before anybody else can use one of them, or close it.
        closing = [
            self._entries.pop(account) for account in {*old, *idle[: max(0, len(idle) - _IDLE_CLIENTS)]}
        ]
        for entry in closing:
            await _close(entry)

    async def _make(self, account: Account) -> tuple[S3Client, _Closing]:
        session = await self._warm_session()
        vendor = VENDORS[account.vendor]
        config = AioConfig(
            signature_version="s3v4",
            region_name=account.region,
            s3={
                # Must be said: with an endpoint of its own botocore's default is the path.
                "addressing_style": "path" if account.path_style else "virtual",
                "payload_signing_enabled": vendor.payload_signing,
            },
            request_checksum_calculation=vendor.checksum_calculation,
            response_checksum_validation="when_required",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=_CONNECTIONS,
            retries={"max_attempts": 0},
            tcp_keepalive=True,
            user_agent=_USER_AGENT,
            ignore_configured_endpoint_urls=True,
            connector_args=self._connector_args(),
        )
        context = session.create_client(
            "s3",
            endpoint_url=account.endpoint or None,
            config=config,
            aws_access_key_id=account.access_key_id,
            aws_secret_access_key=account.secret_access_key,
            aws_session_token=account.session_token or None,
            verify=str(self._ca_file) if self._ca_file else None,
        )
        try:
            client = await context.__aenter__()
        except ValueError as error:
            raise StoreRefused("InvalidSettings", f"The storage settings can't be used: {error}") from error
        # With `Expect: 100-continue` aiohttp's read timeout never starts while a silent server withholds the 100.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        client.meta.events.register_last("before-parameter-build.s3", _stay)
        if not vendor.list_url_encode:
            client.meta.events.unregister(
                "before-parameter-build.s3.ListObjects", botocore.handlers.set_list_objects_encoding_type_url
            )
        return cast(S3Client, client), cast(_Closing, client)

    def _connector_args(self) -> dict[str, object]:
        arguments: dict[str, object] = {"socket_factory": self._make_socket}
        if self._resolver is not None:
            arguments["resolver"] = self._resolver
        return arguments

    def _make_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family=family, type=kind, proto=protocol)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unread_milliseconds)
        self._sockets.add(made)
        return made

    async def _warm_session(self) -> AioSession:
        async with self._warm:
            if self._session is None:
                # Accounts come from settings alone: no profile and no file of the user that runs the server.
                session = AioSession(
                    {
                        "profile": (None, None, None, None),
                        "config_file": (None, None, os.devnull, None),
                        "credentials_file": (None, None, os.devnull, None),
                    }
                )
                # Loading the service's model takes 100 ms; without this it stops the event loop.
                await asyncio.to_thread(session.warm_up_loader_caches, "s3")
                self._session = session
            return self._session


def _stay(context: dict[str, object], **_: object) -> None:
    # botocore looks for the bucket's region by a HEAD, and for that one's by another: a server that redirects
    # everything would be asked until the stack is full. Where a bucket is, its settings say.
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


async def _close(entry: _Entry) -> None:
    await asyncio.wait((entry.made,))
    if not entry.made.cancelled() and entry.made.exception() is None:
        await entry.made.result()[1].close()
