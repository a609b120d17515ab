"""Clients of accounts: each is closed once, and never under somebody who uses it."""

import asyncio
from dataclasses import replace

from roomtape.v1 import storage_pb2
from roomtape_service.storage.clients import Account, S3Clients


def _account(region: str, key: str) -> Account:
    return Account(
        vendor=storage_pb2.STORAGE_VENDOR_S3,
        endpoint="http://127.0.0.1:9",
        region=region,
        path_style=True,
        access_key_id=key,
        secret_access_key="secret",
        source="vault",
    )


async def test_older_clients_are_closed_once_by_whoever_comes_first() -> None:
    clients = S3Clients()
    before = [_account(region, "old") for region in ("a", "b", "c")]
    for account in before:
        async with clients.client(account):
            pass
    assert clients.open_clients == len(before)

    async def use(account: Account) -> None:
        async with clients.client(account):
            await all_open.wait()

    all_open = asyncio.Barrier(len(before))
    after = [replace(account, access_key_id="new") for account in before]
    await asyncio.gather(*map(use, after))
    assert clients.open_clients == len(after)
    await clients.aclose()
