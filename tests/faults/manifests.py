"""The manifests of a run, each proven against what the store has."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from roomtape_service.manifest.model import File, Manifest
from roomtape_service.manifest.verification import NotThere, verify
from tests.faults.stores import FaultyStore
from tests.support.manifests import assert_valid

__all__ = ["judge_manifests"]


class _Objects:
    """See Objects: past the server and its proxy."""

    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    async def fetch(self, file: File, scratch: Path) -> Path:
        path = scratch / "object"
        try:
            path.write_bytes(await asyncio.to_thread(self._store.read, file.object_key))
        except OSError as error:
            raise NotThere(f"it is not there: {error}") from error
        return path

    async def unnamed(self, manifest: Manifest) -> Sequence[str]:
        return ()


def judge_manifests(store: FaultyStore, task_ids: Iterable[str]) -> list[str]:
    """What is wrong with the tasks by their manifests. Blocks."""
    return asyncio.run(_judge(store, task_ids))


async def _judge(store: FaultyStore, task_ids: Iterable[str]) -> list[str]:
    objects = await asyncio.to_thread(store.objects)
    problems = []
    for task_id in task_ids:
        keys = [key for key in objects if key.endswith(f"/{task_id}/manifest.json")]
        if len(keys) != 1:
            problems.append(f"task {task_id} has {len(keys)} manifests: {keys}")
            continue
        data = await asyncio.to_thread(store.read, keys[0])
        assert_valid(data)
        report = await verify(data, _Objects(store))
        problems += [f"{keys[0]}: {each.about}: {each.problem}" for each in report.findings]
        if report.manifest is None or not report.manifest.complete:
            problems.append(f"{keys[0]}: it is not complete")
    return problems
