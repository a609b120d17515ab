"""Looks up the names of receivers, on threads of its own.

The system's lookup can't be given up: where a name server does not answer it holds its thread for half a minute. So no
other part of the service waits for these threads, and none of them keeps the process from ending. The connector has a
name looked up once at a time, so a name that hangs takes one of them.
"""

import asyncio
import socket
import threading
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Resolver"]

_PARALLEL_LOOKUPS: Final = 64


class Resolver(AbstractResolver):
    """The system's names, for aiohttp."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_PARALLEL_LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def settle(result: list[ResolveResult] | OSError) -> None:
            # Only now: a thread that nobody waits for any more still is one.
            self._places.release()
            if found.done():
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look_up() -> None:
            result = _addresses(host, port, family)
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:
                # The loop was closed meanwhile; nobody waits.
                return

        threading.Thread(target=look_up, name="webhook-name", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Waits for nobody: a thread that looks up a name ends when the system lets it, or with the process."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult] | OSError:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as error:
        return error
    except UnicodeError as error:
        return OSError(None, f"{host!r} is no name: {error}")
    return [
        ResolveResult(
            hostname=host,
            host=str(place[0]),
            port=port,
            family=each,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for each, _, protocol, _, place in found
    ]
