"""Looking up names while a name server does not answer."""

import asyncio
import socket
import threading

import pytest

from roomtape_service.webhooks.resolver import Resolver


async def test_a_name_that_hangs_holds_up_neither_others_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    asked = threading.Event()
    real = socket.getaddrinfo

    def sometimes(host: str, *arguments: int, **flags: int) -> object:
        if host == "hangs.example":
            asked.set()
            answers.wait(30)
        return real("127.0.0.1", *arguments, **flags)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    resolver = Resolver()
    hanging = asyncio.create_task(resolver.resolve("hangs.example", 443))
    assert await asyncio.to_thread(asked.wait, 10)
    found = await resolver.resolve("quick.example", 443)
    assert {(each["host"], each["port"], each["hostname"]) for each in found} == {
        ("127.0.0.1", 443, "quick.example")
    }
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await resolver.close()
    # The thread's answer comes when nobody waits for it any more.
    answers.set()


async def test_names_that_are_not_there_and_names_that_are_none() -> None:
    resolver = Resolver()
    for host in ("nowhere.invalid", "a" * 70 + ".example"):
        with pytest.raises(OSError, match=r"."):
            await resolver.resolve(host, 443)
