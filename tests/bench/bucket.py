"""An S3 server, and processes that put files into it."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.bench.child import Child
from tests.bench.processes import MIB
from tests.support.weed import weed_server

__all__ = ["Uploader", "uploaders"]

_BUCKET = "bench"
_LOOK_SECONDS = 0.02
_MODULES = {"ours": "tests.bench.uploader", "boto3": "tests.bench.boto3_uploader"}


class Uploader:
    """One of the processes."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._child.number("ready")
        self._process = psutil.Process(child.pid)

    def put(self, files: int, size_mib: int, *, is_timed: bool = False) -> dict[str, float]:
        """Puts files. What the process says of it, and `memory_mib`: the most that it had above what it began with.

        `is_timed`: with how late its event loop was, which costs it a little.
        """
        order = f"{files} {size_mib} stall" if is_timed else f"{files} {size_mib}"
        self._child.tell(order)
        self._child.number("filled")
        start = highest = self._process.memory_info().rss
        is_over = threading.Event()

        def look() -> None:
            nonlocal highest
            while not is_over.wait(_LOOK_SECONDS):
                highest = max(highest, self._process.memory_info().rss)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            self._child.tell(order)
            facts = self._child.hear()
        finally:
            is_over.set()
            looking.join()
        said = {key: value for key, value in facts.items() if isinstance(value, int | float)}
        return {**said, "memory_mib": (highest - start) / MIB}


@contextmanager
def uploaders(folder: Path, *kinds: str) -> Iterator[list[Uploader]]:
    """Processes of these kinds, `ours` or `boto3`, that have one bucket on a new SeaweedFS."""
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        # Its name must be short, for the sockets in it.
        server = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        weed = stack.enter_context(weed_server(Path(server), _BUCKET))
        found = []
        for kind in kinds:
            own = folder / kind
            own.mkdir(parents=True)
            keys = (weed.access_key_id, weed.secret_access_key)
            arguments = (str(own), weed.endpoint, _BUCKET, *keys)
            found.append(Uploader(stack.enter_context(Child(_MODULES[kind], *arguments))))
        yield found
