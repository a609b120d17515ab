"""The README's Python program, as it stands there, against the real service."""

import asyncio
import re
import sys
from pathlib import Path

from tests.support.server import running_server

ROOT = Path(__file__).parents[2]
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60.0


async def test_the_python_program(tmp_path: Path) -> None:
    (program,) = PROGRAM.findall((ROOT / "README.md").read_text("utf-8"))
    async with running_server(tmp_path / "data", create_default_application="demo") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program.replace("127.0.0.1:7400", server.target)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    lines = out.decode().splitlines()
    assert "EVENT_TYPE_RECORDING_STARTED" in [line.strip() for line in lines]
    assert lines[-1].split() == ["EVENT_TYPE_TASK_FILES_COMPLETE"]
    stored = [line.split()[1] for line in lines if line.startswith("EVENT_TYPE_SEGMENT_UPLOADED")]
    assert len(stored) == 2
    for url in stored:
        assert Path(url.removeprefix("file://")).stat().st_size > 0
