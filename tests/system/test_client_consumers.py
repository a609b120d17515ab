"""Programs of users of the client: strictly typed, on the oldest and on the newest runtime that it supports."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import webhook_requests
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
CONSUMER = ROOT / "tests" / "client" / "consumer.py"
WEBHOOK_CONSUMER = ROOT / "tests" / "client" / "webhook_consumer.py"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(folder),
        cwd=ROOT / "clients/python",
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="session")
def oldest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the oldest supported runtime and the wheel."""
    environment = tmp_path_factory.mktemp("oldest")
    _run(sys.executable, "-m", "venv", str(environment))
    python = environment / "bin" / "python"
    requirements = str(ROOT / "requirements" / "oldest.txt")
    _run(str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", requirements)
    _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel))
    return python


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path / "server") as server:
        yield server


@pytest.mark.parametrize("consumer", [CONSUMER, WEBHOOK_CONSUMER], ids=lambda path: path.stem)
def test_a_consumer_passes_mypy(installed: Path, tmp_path: Path, consumer: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nmypy_path = {installed}\n")
    program = shutil.copy(consumer, tmp_path)
    _run(
        str(BIN / "mypy"),
        "--strict",
        "--config-file",
        str(config),
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(program),
        cwd=tmp_path,
    )


@pytest.mark.parametrize("consumer", [CONSUMER, WEBHOOK_CONSUMER], ids=lambda path: path.stem)
def test_a_consumer_passes_pyright(installed: Path, tmp_path: Path, consumer: Path) -> None:
    program = shutil.copy(consumer, tmp_path)
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(program)],
        "extraPaths": [str(installed)],
        "venvPath": str(BIN.parent.parent),
        "venv": BIN.parent.name,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    _run(str(BIN / "pyright"), "--project", str(tmp_path), cwd=tmp_path)


@pytest.mark.parametrize("runtime", ["oldest", "newest"])
async def test_it_runs(server: ServerProcess, runtime: str, request: pytest.FixtureRequest) -> None:
    python = sys.executable
    if runtime == "oldest":
        python = str(await asyncio.to_thread(request.getfixturevalue, "oldest"))
    process = await asyncio.create_subprocess_exec(
        python,
        "-W",
        "error",
        str(CONSUMER),
        server.target,
        "app",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    report = json.loads(output)
    one = report["asyncio"]
    assert one["refused"] == "ERROR_REASON_TASK_IN_USE"
    assert (one["published"], one["samples"], one["files"]) == (50, 48_000, 1)
    assert one["events"][-1] == "EVENT_TYPE_TASK_FILES_COMPLETE"
    assert report["threads"]["missing"] == "ERROR_REASON_ROOM_NOT_FOUND"
    assert report["threads"]["events"][-1] == "EVENT_TYPE_TASK_FILES_COMPLETE"


@pytest.mark.parametrize("runtime", ["oldest", "newest"])
def test_it_verifies_webhooks(runtime: str, request: pytest.FixtureRequest) -> None:
    python = sys.executable if runtime == "newest" else str(request.getfixturevalue("oldest"))
    genuine = webhook_requests.request(webhook_requests.event())
    other = webhook_requests.request(webhook_requests.event(), webhook_requests.OTHER_KEY, webhook_id="other")
    lines = [
        json.dumps({"headers": dict(each.headers), "body": each.body.decode()})
        for each in (genuine, other, genuine)
    ]
    done = subprocess.run(
        [python, "-W", "error", str(WEBHOOK_CONSUMER), webhook_requests.KEY],
        input="\n".join(lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "told": ["EVENT_TYPE_PARTICIPANT_JOINED", "forged", "EVENT_TYPE_PARTICIPANT_JOINED"],
        "statuses": [204, 401, 204],
        "rooms": [webhook_requests.event().room_id],
    }


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
