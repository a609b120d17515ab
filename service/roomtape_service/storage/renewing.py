"""Files that wait because a source's keys were refused go on when the source gives others."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from roomtape_service.storage.credentials import CredentialSources

__all__ = ["OnRenewed", "RenewedCredentials"]

_INTERVAL_SECONDS = 5.0

OnRenewed = Callable[[], Awaitable[None]]
"""Some source gives other keys: stores in trouble may take what they get now."""

_log = structlog.get_logger(__name__)


class RenewedCredentials:
    """Looks at all sources that are in use, now and then."""

    def __init__(
        self,
        sources: CredentialSources,
        on_renewed: OnRenewed,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._sources = sources
        self._on_renewed = on_renewed
        self._interval_seconds = interval_seconds
        self._renewals: dict[str, int] = {}
        self._closing = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Ticks until `aclose`; what goes wrong in a tick is logged and tried again in the next."""
        self._stopped.clear()
        try:
            while not self._closing.is_set():
                try:
                    await self.tick()
                except Exception:
                    _log.exception("credential_sources_not_read")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_seconds):
                        await self._closing.wait()
        finally:
            self._stopped.set()

    async def tick(self) -> None:
        """Looks once."""
        before = dict(self._renewals)
        for keys in self._sources.all:
            self._renewals[keys.name] = await keys.look()
        if any(count > before.get(name, 0) for name, count in self._renewals.items()):
            try:
                await self._on_renewed()
            except BaseException:
                self._renewals = before
                raise

    async def aclose(self) -> None:
        """Ends `run`, and waits for it. Idempotent."""
        self._closing.set()
        await self._stopped.wait()
