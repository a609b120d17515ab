"""One attempt to hand a request to a receiver, and what came of it.

A receiver is anybody's program: it may not answer, or for ever, or lead elsewhere. So an attempt has an end in time,
follows no redirect, reads a little of the answer and undoes no compression. The status decides; what follows it is
read for so long only because a connection whose answer was read can be used again.
"""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.webhooks.formats.format import Request
from roomtape_service.webhooks.guard import AddressGuard, AddressRefused
from roomtape_service.webhooks.resolver import Resolver

__all__ = ["Answer", "Fault", "Sender"]

_ANSWER_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 16 * 1024
_ANSWER_SECONDS: Final = 2.0
"""For what follows the head of an answer."""
_ERROR_CHARACTERS: Final = 200
_NAME_SECONDS: Final = 10
# Common servers close idle connections after 5 s; a request must not meet that.
_IDLE_SECONDS: Final = 4.0

_REDIRECTS: Final = range(300, 400)
_NOT_FOLLOWED: Final = ", a redirect, which is not followed"
_UNAVAILABLE: Final = 429, 503
_DIGITS: Final = 9


class Fault(StrEnum):
    """Why there is no status."""

    TIMEOUT = "no answer in time"
    NAME = "the host has no address"
    REFUSED = "the host leads to an address that is not allowed"
    CONNECTION = "the connection was not made"
    TLS = "TLS failed"
    LOST = "the connection broke before the answer"
    PROTOCOL = "the answer is not HTTP"
    URL = "the URL can't be used"
    FORMAT = "the request can't be formed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt: a status, or a fault (then `status` is 0)."""

    status: int = 0
    fault: Fault | None = None
    text: str = ""
    """Of the error, for the webhook's owner: what the receiver said, or what failed. Up to 200 characters."""
    rest_seconds: float = 0.0
    """What a receiver that is overloaded asked for."""

    @property
    def cause(self) -> str:
        """What failed, for logs: nothing that others wrote."""
        if self.fault is not None:
            return str(self.fault)
        return f"HTTP {self.status}{_NOT_FOLLOWED if self.status in _REDIRECTS else ''}"

    @property
    def error(self) -> str:
        """What failed, with the text, for the webhook's owner."""
        return f"{self.cause}: {self.text}" if self.text else self.cause


class Sender:
    """Sends. `start` before anything is sent; `aclose` is idempotent and ends what is under way."""

    def __init__(
        self,
        guard: AddressGuard,
        clock: Clock,
        *,
        version: str = "",
        tls: ssl.SSLContext | None = None,
        names: AbstractResolver | None = None,
        name_seconds: int = _NAME_SECONDS,
    ) -> None:
        """`tls` says whom to trust; the system's authorities by default. `names` looks up hosts, by default as the
        system does; what it found holds for `name_seconds`.
        """
        self._guard = guard
        self._clock = clock
        self._agent = f"roomtape/{version}" if version else "roomtape"
        self._tls = tls
        self._names = names
        self._name_seconds = name_seconds
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Makes ready; connects nowhere."""
        tls = self._tls
        if tls is None:
            tls = await asyncio.to_thread(ssl.create_default_context)
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=tls,
            resolver=self._names or Resolver(),
            ttl_dns_cache=self._name_seconds,
            keepalive_timeout=_IDLE_SECONDS,
            socket_factory=self._guard.open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
            skip_auto_headers=("Accept",),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=_BUFFER_BYTES,
            trust_env=False,
        )

    async def send(self, url: str, request: Request, timeout_seconds: float) -> Answer:
        """POSTs it once. Everything that a receiver can do is an Answer."""
        assert self._session is not None, "the sender is not started"
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._session.post(
                    url, data=request.body, headers=request.headers, allow_redirects=False
                )
        except TimeoutError:
            return Answer(fault=Fault.TIMEOUT, text=f"{timeout_seconds:g} s")
        except aiohttp.ClientError as error:
            return _failure(error)
        except (OSError, RuntimeError) as error:
            # Where a connection is made, uvloop raises either.
            return Answer(fault=Fault.CONNECTION, text=_printable(str(error)))
        except ValueError:
            return Answer(fault=Fault.URL)
        async with response:
            text = await _text(response)
        return Answer(response.status, text=text, rest_seconds=self._rest_seconds(response))

    def _rest_seconds(self, response: aiohttp.ClientResponse) -> float:
        """Retry-After of RFC 9110 10.2.3: seconds, or a date."""
        value = response.headers.get("Retry-After", "") if response.status in _UNAVAILABLE else ""
        if value.isascii() and value.isdigit():
            return float(value[:_DIGITS])
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        return until.replace(tzinfo=until.tzinfo or UTC).timestamp() - self._clock.now_ns() / NANOSECONDS

    async def aclose(self) -> None:
        """Closes all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _text(response: aiohttp.ClientResponse) -> str:
    """Reads the answer to its end, if that is near. Returns how it begins."""
    if response.content.is_eof():
        # All of it came with the head, as mostly.
        return _beginning(response.content.read_nowait())
    read = bytearray()
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            while data := await response.content.readany():
                read += data
                if len(read) > _ANSWER_BYTES:
                    response.close()
                    break
    except (TimeoutError, aiohttp.ClientError):
        # The head of it came, so the receiver has the request.
        response.close()
    return _beginning(read)


def _beginning(answer: bytes | bytearray) -> str:
    return _printable(bytes(answer[: 4 * _ERROR_CHARACTERS]).decode("utf-8", "replace"))


def _failure(error: aiohttp.ClientError) -> Answer:
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            # Its text is the URL, which may hold what is secret.
            return Answer(fault=Fault.URL)
        case aiohttp.ClientConnectorDNSError():
            return Answer(fault=Fault.NAME, text=_reason(error.os_error))
        case aiohttp.ClientConnectorCertificateError():
            return Answer(fault=Fault.TLS, text=_printable(str(error.certificate_error)))
        case aiohttp.ClientSSLError():
            return Answer(fault=Fault.TLS, text=_reason(error.os_error))
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, AddressRefused):
            # Not which address: what names of the operator's network lead to is nothing to tell.
            return Answer(fault=Fault.REFUSED)
        case aiohttp.ClientConnectorError():
            return Answer(fault=Fault.CONNECTION, text=_reason(error.os_error))
        case aiohttp.ClientResponseError():
            return Answer(fault=Fault.PROTOCOL, text=_printable(error.message))
        case _:
            return Answer(fault=Fault.LOST, text=_printable(str(error)))


def _reason(error: OSError) -> str:
    return _printable(error.strerror or str(error))


def _printable(text: str) -> str:
    """One line of what others wrote."""
    return "".join(each if each.isprintable() else " " for each in text)[:_ERROR_CHARACTERS].strip()
