"""Keys for a role, in exchange for a token that a platform gave the server (AssumeRoleWithWebIdentity)."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import aiohttp
from botocore import exceptions

from roomtape_service.clock import NANOSECONDS
from roomtape_service.settings_sources import WebIdentitySource
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.credentials import Keys
from roomtape_service.storage.store import CredentialsRefused, StoreError, StoreUnavailable

__all__ = ["WebIdentityReader"]

_CALL_SECONDS = 30.0
_MAX_TOKEN_BYTES = 20_000
_DETAIL_CHARACTERS = 300


class WebIdentityReader:
    """Asks STS. The token's file is read for each request: platforms write it anew before it expires."""

    def __init__(self, source: WebIdentitySource, clients: S3Clients) -> None:
        self._source = source
        self._clients = clients

    async def is_changed(self) -> bool:
        # A new token gives no better keys than the old one gave.
        return False

    async def read(self) -> Keys:
        source = self._source
        token = await asyncio.to_thread(self._token)
        try:
            async with (
                asyncio.timeout(_CALL_SECONDS),
                self._clients.sts_client(source.sts_endpoint, source.sts_region) as sts,
            ):
                answer = await sts.assume_role_with_web_identity(
                    RoleArn=source.role_arn,
                    RoleSessionName=source.session_name,
                    WebIdentityToken=token,
                    DurationSeconds=source.duration_seconds,
                )
        except exceptions.ClientError as error:
            raise self._refused(error, token) from None
        except (exceptions.BotoCoreError, aiohttp.ClientError, OSError, ValueError) as error:
            detail = str(error).replace(token, "…")[:_DETAIL_CHARACTERS] or type(error).__name__
            raise StoreUnavailable(
                "CredentialSourceUnavailable",
                f"STS of the credential source {source.name!r} can't be reached ({detail}). It is tried again by "
                "itself.",
            ) from None
        given = cast(Mapping[str, object], answer["Credentials"])
        expiration = cast(datetime, given["Expiration"])
        return Keys(
            str(given["AccessKeyId"]),
            str(given["SecretAccessKey"]),
            str(given["SessionToken"]),
            expire_ns=round(expiration.timestamp()) * NANOSECONDS,
        )

    def _token(self) -> str:
        source = self._source
        try:
            with source.token_file.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise CredentialsRefused(
                "CredentialSourceUnreadable",
                f"The token file {source.token_file} of the credential source {source.name!r} can't be read: {reason}.",
            ) from None
        if not token or len(token) > _MAX_TOKEN_BYTES:
            raise CredentialsRefused(
                "CredentialSourceUnreadable",
                f"The token file {source.token_file} of the credential source {source.name!r} holds no token.",
            )
        return token

    def _refused(self, error: exceptions.ClientError, token: str) -> StoreError:
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(said.get("Code", "")) or str(status)
        detail = str(said.get("Message", "")).replace(token, "…")[:_DETAIL_CHARACTERS]
        name = self._source.name
        if status >= 500 or status == 429 or code == "IDPCommunicationError":
            return StoreUnavailable(
                "CredentialSourceUnavailable",
                f"STS of the credential source {name!r} answers {code} ({detail}). It is tried again by itself.",
            )
        return CredentialsRefused(
            "CredentialSourceRefused",
            f"STS gives the credential source {name!r} no keys for {self._source.role_arn}: {code} ({detail}). The "
            "server's operator must correct the role, its trust policy or the token.",
        )
