"""The supervisor with real processes: order, restarts, kills, and one supervisor a data folder."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from roomtape_service.kept_process import Restarts
from roomtape_service.locks import LockedError
from roomtape_service.readiness import EXIT_UNUSABLE, Ready
from roomtape_service.settings import parse
from roomtape_service.supervisor import Programs, Supervisor, Timing
from tests.support.journals import alive, lines
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
QUICK = Timing(
    restarts=Restarts(healthy=0.0, first_pause=0.01, attempts=3), node_stop=10, lock_wait=20, hasten_after=0
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return data_dir


def supervisor_of(folder: Path, on_ready: Callable[[Ready], None], timing: Timing = QUICK) -> Supervisor:
    settings = parse(
        {
            "data_dir": str(folder),
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "workers": 2,
            "drain_seconds": 0,
        }
    )
    programs = Programs("tests.support.fake_node", "tests.support.fake_worker")
    return Supervisor(settings, on_ready, environment=ENVIRONMENT, programs=programs, timing=timing)


@asynccontextmanager
async def serving(
    folder: Path, timing: Timing = QUICK
) -> AsyncIterator[tuple[Supervisor, "asyncio.Task[int]", list[Ready]]]:
    ready: list[Ready] = []
    supervisor = supervisor_of(folder, ready.append, timing)
    running = asyncio.create_task(supervisor.run())
    try:
        await eventually(lambda: bool(ready) or running.done(), "the node is ready, or given up")
        yield supervisor, running, ready
    finally:
        supervisor.stop()
        supervisor.stop()
        await asyncio.wait({running})


def lived(folder: Path, who: str, lives: int) -> bool:
    return len(pids(folder, who)) == lives


def pids(folder: Path, who: str) -> list[int]:
    return [int(line.split()[2]) for line in lines(folder, f"{who} starts")]


async def test_the_node_stops_before_its_workers_and_nothing_is_left(folder: Path) -> None:
    async with serving(folder) as (supervisor, running, ready):
        assert ready == [Ready("127.0.0.1:7999", "127.0.0.1:7998")]
        told = json.loads((folder / "run" / "ready.json").read_text())
        assert told == {"listen": "127.0.0.1:7999", "http_listen": "127.0.0.1:7998", "pid": os.getpid()}
        supervisor.stop()
        assert await running == 0
    journal = [" ".join(line.split()[:3]) for line in lines(folder)]
    stopped = journal.index("node has stopped")
    assert journal.index("node is told") < stopped
    assert stopped < min(journal.index("worker-0 has stopped"), journal.index("worker-1 has stopped"))
    assert not any(map(alive, pids(folder, "node") + pids(folder, "worker-0") + pids(folder, "worker-1")))
    assert [path.name for path in (folder / "run").iterdir() if not stat.S_ISSOCK(path.stat().st_mode)] == [
        "supervisor.lock"
    ]


async def test_children_have_groups_of_their_own_and_settings_for_their_eyes_only(folder: Path) -> None:
    async with serving(folder):
        _, _, pid, group, listen, mode = lines(folder, "node starts")[0].split()
        assert pid == group
        assert listen == "127.0.0.1:0"
        assert mode == "600"
        assert lines(folder, "worker-1 starts")[0].endswith(" kernel")


async def test_a_killed_node_comes_back_on_the_port_it_had(folder: Path) -> None:
    async with serving(folder) as (_, running, ready):
        for life in range(1, 4):
            for worker in ("worker-0", "worker-1"):
                await eventually(partial(lived, folder, worker, life), f"{worker} starts again")
            os.kill(pids(folder, "node")[-1], signal.SIGKILL)
            await eventually(partial(lived, folder, "node", life + 1), "the node starts again")
        assert not running.done()
        assert len(ready) == 1
        assert lines(folder, "node starts")[-1].split()[4] == "127.0.0.1:7999"


async def test_a_killed_worker_comes_back_and_the_node_stays(folder: Path) -> None:
    async with serving(folder) as (_, running, _ready):
        os.kill(pids(folder, "worker-1")[0], signal.SIGKILL)
        await eventually(partial(lived, folder, "worker-1", 2), "the worker starts again")
        assert len(pids(folder, "node")) == len(pids(folder, "worker-0")) == 1
        assert not running.done()


async def test_a_child_that_is_killed_again_and_again_is_not_given_up(folder: Path) -> None:
    async with serving(
        folder, Timing(restarts=Restarts(healthy=60, first_pause=0.01, attempts=2), hasten_after=0)
    ) as (
        _,
        running,
        _r,
    ):
        for life in range(1, 8):
            await eventually(partial(lived, folder, "worker-1", life), "the worker starts again")
            os.kill(pids(folder, "worker-1")[-1], signal.SIGKILL)
        for life in range(1, 4):
            await eventually(partial(lived, folder, "node", life), "the node starts again")
            os.kill(pids(folder, "node")[-1], signal.SIGKILL)
        await eventually(partial(lived, folder, "node", 4), "the node starts again")
        assert not running.done()


@pytest.mark.parametrize(("manner", "code", "lives"), [("unusable", EXIT_UNUSABLE, 1), ("broken", 1, 3)])
async def test_a_node_that_never_serves_is_given_up(folder: Path, manner: str, code: int, lives: int) -> None:
    (folder / manner).touch()
    never_healthy = Timing(restarts=Restarts(healthy=60, first_pause=0.01, attempts=3), hasten_after=0)
    async with serving(folder, never_healthy) as (_, running, ready):
        assert await running == code
        assert ready == []
        assert len(pids(folder, "node")) == lives


async def test_a_node_that_hangs_is_killed_when_its_time_is_over(folder: Path) -> None:
    (folder / "hangs").touch()
    async with serving(folder, Timing(node_stop=0.1, hasten_after=0)) as (supervisor, running, _ready):
        supervisor.stop()
        assert await running == 0
    assert not alive(pids(folder, "node")[0])
    assert "node has stopped" not in lines(folder)


async def test_a_second_signal_ends_everything_at_once(folder: Path) -> None:
    (folder / "hangs").touch()
    async with serving(folder, Timing(node_stop=3600, hasten_after=0)) as (_, running, _ready):
        os.kill(os.getpid(), signal.SIGINT)
        await eventually(lambda: "node is told to stop" in lines(folder), "the node is told")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert not any(map(alive, pids(folder, "node") + pids(folder, "worker-0") + pids(folder, "worker-1")))


async def test_one_signal_that_comes_twice_is_one(folder: Path) -> None:
    async with serving(folder, Timing(hasten_after=60)) as (supervisor, running, _ready):
        supervisor.stop()
        supervisor.stop()
        assert await running == 0
        assert "node has stopped" in lines(folder)


async def test_a_second_supervisor_of_the_same_folder_is_refused(folder: Path) -> None:
    async with serving(folder):
        with pytest.raises(LockedError, match=f"process {os.getpid()} serves this data folder"):
            await supervisor_of(folder, lambda _: None).run()


async def start_service(folder: Path) -> asyncio.subprocess.Process:
    """A supervisor as a process of its own, once it is ready."""
    ready = len(lines(folder, "supervisor ready"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.fake_service",
        str(folder),
        env=ENVIRONMENT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await eventually(
        lambda: len(lines(folder, "supervisor ready")) > ready or process.returncode is not None,
        "it is ready",
    )
    assert process.returncode is None
    return process


async def test_the_children_of_a_killed_supervisor_end_in_order_and_the_next_one_waits(folder: Path) -> None:
    first = await start_service(folder)
    first.kill()
    await first.wait()
    second = await start_service(folder)
    try:
        journal = [" ".join(line.split()[:3]) for line in lines(folder)]
        assert journal.index("node is told") < journal.index("node has stopped")
        for who in ("node", "worker-0", "worker-1"):
            old, new = pids(folder, who)
            assert not alive(old)
            assert alive(new)
        ended = max(i for i, line in enumerate(journal) if line.endswith("has stopped"))
        second_start = [i for i, line in enumerate(journal) if line.startswith("node starts")][1]
        assert ended < second_start
    finally:
        second.terminate()
        assert await second.wait() == 0


async def test_a_child_is_ended_also_if_it_does_not_listen(folder: Path) -> None:
    (folder / "hangs").touch()
    read_end, write_end = os.pipe()
    ignore = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    (folder / "deaf.py").write_text(ignore + "print('deaf', flush=True)\ntime.sleep(60)\n")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "roomtape_service.child", "--name", "deaf", "--lifeline", str(read_end)),
        *("--patience", "0", "--kill-after", "0.1", "--log-level", "info", "--log-format", "json", "deaf"),
        pass_fds=(read_end,),
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(read_end)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"deaf\n"
    child.send_signal(signal.SIGINT)
    os.close(write_end)
    assert await child.wait() == -signal.SIGKILL
    await child.communicate()
