"""The memory that all uploads share."""

import asyncio

import pytest

from roomtape_service.storage.budget import MemoryBudget


async def _turns() -> None:
    """Lets every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    budget = MemoryBudget(10)
    order: list[str] = []

    async def use(name: str, size_bytes: int, release: asyncio.Event) -> None:
        async with budget.take(size_bytes):
            order.append(name)
            await release.wait()

    first, rest = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(use("eight", 8, first))
        group.create_task(use("six", 6, rest))
        group.create_task(use("two", 2, rest))
        await _turns()
        assert order == ["eight"]
        first.set()
        await _turns()
        assert order == ["eight", "six", "two"]
        assert budget.used_bytes == 8
        rest.set()
    assert budget.used_bytes == 0


async def test_who_gives_up_waiting_frees_the_way() -> None:
    budget = MemoryBudget(10)
    taken = await budget.acquire(8)
    large = asyncio.create_task(budget.acquire(6))
    small = asyncio.create_task(budget.acquire(2))
    await _turns()
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    assert await small == 2
    budget.release(2)
    budget.release(taken)
    assert budget.used_bytes == 0


async def test_what_is_cancelled_as_it_is_served_is_given_back() -> None:
    budget = MemoryBudget(10)
    taken = await budget.acquire(10)
    waiting = asyncio.create_task(budget.acquire(4))
    await _turns()
    budget.release(taken)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used_bytes == 0


async def test_what_is_larger_than_the_budget_passes_alone() -> None:
    budget = MemoryBudget(10)
    async with budget.take(100):
        assert budget.used_bytes == 10
    assert budget.used_bytes == 0
