"""A process of this bench, spoken with in lines of JSON over its stdin and stdout."""

import json
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

__all__ = ["Child"]

_END_SECONDS = 10.0


class Child:
    """Runs `python -m <module>` while the block runs."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Sends a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> Mapping[str, object]:
        """Waits for its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with code {self._process.wait()}")
        facts = json.loads(line)
        assert isinstance(facts, dict)
        return facts

    def number(self, key: str) -> float:
        """Waits for its next line, which has a number under the key."""
        value = self.hear()[key]
        assert isinstance(value, int | float)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(_END_SECONDS if _error is None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
