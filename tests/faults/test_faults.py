"""Nothing recorded is ever lost: kills, broken networks and failing stores, judged by what the publishers wrote down.

FAULTS_KILLS is the number of kills of a store's run (10), FAULTS_SEED the seed of its schedule, FAULTS_STORE one of
disk, weed and rclone instead of all. A run that fails prints its seed and schedule, and leaves its folder.
"""

import asyncio
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.run import Run
from tests.faults.schedule import EVERY_FAILPOINT, schedule
from tests.faults.stores import STORES, faulty_store
from tests.faults.verdict import judge

KILLS = int(os.environ.get("FAULTS_KILLS", "10"))
SEED = int(os.environ.get("FAULTS_SEED", "20261121"))
STORE = os.environ.get("FAULTS_STORE", "")

pytestmark = pytest.mark.timeout(300 + KILLS * 40)


@pytest.mark.parametrize("name", [STORE] if STORE else STORES)
async def test_everything_acknowledged_is_in_the_store(name: str, tmp_path: Path) -> None:
    started = time.monotonic()
    async with faulty_store(name, tmp_path / "store", tmp_path / "data" / "files") as store:
        steps = schedule(KILLS, SEED, has_server=store.program is not None)
        async with Run(tmp_path, store, SEED) as run:
            try:
                for number, step in enumerate(steps):
                    await run.go(step)
                    print(f"{time.monotonic() - started:6.1f} s  {number + 1:3}  {step}")
                outcome = await run.finish()
                unknown = run.failpoints.hits() - set(EVERY_FAILPOINT)
                assert not unknown, f"declare {unknown} in failpoint_names.py"
                figures = await asyncio.to_thread(judge, outcome, store, run.server.data_dir)
            except BaseException as error:
                run.save(steps, error)
                print(f"store {name}, seed {SEED}, {len(steps)} steps; what is left lies in {tmp_path}")
                raise
            finally:
                print(
                    f"kills {dict(run.outcome.kills)}, troubles {dict(run.outcome.troubles)}, "
                    f"not reached {run.outcome.unreached}"
                )
    print(f"{name}: {time.monotonic() - started:.0f} s, {asdict(figures)}")
