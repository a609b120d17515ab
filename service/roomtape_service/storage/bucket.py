"""Calls to a bucket: each ends in time, is made again while that may help, and fails with a StoreError."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
from botocore import exceptions
from botocore.parsers import ResponseParserError

from roomtape_service.storage.clients import Account, S3Client, S3Clients
from roomtape_service.storage.credentials import KeyRing
from roomtape_service.storage.store import (
    CredentialsRefused,
    PartsMissing,
    PermissionRefused,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from roomtape_service.storage.troubles import Place, trouble
from roomtape_service.storage.vendors import VENDORS

__all__ = ["Bucket", "S3Limits"]

T = TypeVar("T")

_DETAIL_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class S3Limits:
    """How long calls may take, and how often they are tried before the caller gets the error."""

    call_seconds: float = 30.0
    """For a call without its body. Nothing else ends a call to a server that stops reading."""
    least_bytes_per_second: float = 128 * 1024
    """A body at this speed is in time."""
    attempts: int = 4
    """How often a call that may pass by itself is made; what goes on longer is for the caller to wait out."""
    first_wait_seconds: float = 0.2
    """The wait before the second attempt is random up to this; it doubles from attempt to attempt."""


def _may_be_the_keys(problem: StoreError) -> bool:
    # An answer to HEAD has no body that could tell a wrong key from one that may not.
    return isinstance(problem, CredentialsRefused) or (
        isinstance(problem, PermissionRefused) and problem.code == "403"
    )


class Bucket:
    """A bucket by name, as an account reaches it."""

    def __init__(
        self,
        name: str,
        account: Account,
        keys: KeyRing,
        clients: S3Clients,
        limits: S3Limits,
        randomness: random.Random,
    ) -> None:
        """`account` needs no keys: those of `keys` are used."""
        self.name = name
        self.account = account
        self._keys = keys
        self.vendor = VENDORS[account.vendor]
        self._clients = clients
        self._limits = limits
        self._random = randomness

    async def call(
        self,
        step: str,
        make: Callable[[S3Client], Awaitable[T]],
        body_bytes: int = 0,
        *,
        attempts: int | None = None,
    ) -> T:
        """What `make` returns; it is called again while that may help. `step` is a key of `Vendor.permissions`.

        `attempts` in place of the limits' own. Raises StoreError.
        """
        limits = self._limits
        seconds = limits.call_seconds + body_bytes / limits.least_bytes_per_second
        wait_seconds = limits.first_wait_seconds
        left = attempts or limits.attempts
        are_renewed = False
        while True:
            left -= 1
            keys = await self._keys.keys()
            account = replace(
                self.account,
                access_key_id=keys.access_key_id,
                secret_access_key=keys.secret_access_key,
                session_token=keys.session_token,
            )
            try:
                async with self._clients.client(account) as client, asyncio.timeout(seconds):
                    return await make(client)
            except ResponseParserError as error:
                raise trouble(self._place, step, "NotS3", "its answer can't be read") from error
            except (exceptions.BotoCoreError, exceptions.ClientError, aiohttp.ClientError, OSError) as error:
                problem = self._trouble(step, error)
                if not are_renewed and _may_be_the_keys(problem):
                    are_renewed = await self._keys.renewed(keys)
                    if are_renewed:
                        left += 1
                        continue
                is_passing = isinstance(problem, StoreUnavailable) and not isinstance(problem, PartsMissing)
                if not left or not is_passing:
                    raise problem from error
            await asyncio.sleep(self._random.uniform(0, wait_seconds))
            wait_seconds *= 2

    def _trouble(self, step: str, error: Exception) -> StoreError:
        place = self._place
        if isinstance(error, exceptions.ClientError):
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            detail = str(said.get("Message", ""))[:_DETAIL_CHARACTERS]
            return trouble(place, step, str(said.get("Code", "")), detail, status)
        detail = str(error)[:_DETAIL_CHARACTERS]
        if isinstance(error, TimeoutError | exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
            return trouble(place, step, "Timeout", detail)
        if "CERTIFICATE_VERIFY_FAILED" in detail:
            return trouble(place, step, "CertificateInvalid", detail)
        if isinstance(error, exceptions.ParamValidationError | exceptions.InvalidRegionError):
            return StoreRefused("InvalidSettings", f"The storage settings can't be used: {detail}")
        return trouble(place, step, "ConnectionFailed", detail)

    @property
    def _place(self) -> Place:
        return Place(self.vendor, self.name, self.account.region, self._host)

    @property
    def _host(self) -> str:
        return urlsplit(self.account.endpoint).netloc or f"the endpoint of {self.account.region}"
