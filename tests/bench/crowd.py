"""Publishers of rooms, in a process of their own."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from tests.bench.child import Child
from tests.bench.load import LoadOrder, LoadReport, Publisher
from tests.bench.service import APP

__all__ = ["WARM_SECONDS", "publishing"]

WARM_SECONDS = 2.5
"""From the first frame until everything runs evenly: jitter windows are full, decoders and encoders warm."""

_TOO_LATE_MS = 1000.0


@contextmanager
def publishing(target: str, publishers: Sequence[Publisher], joined: Callable[[], None]) -> Iterator[None]:
    """Publishes in real time while the block runs, which begins when all runs evenly.

    `joined` is called when everybody is in their room and nobody has sent anything. Raises RuntimeError when a
    publisher could not keep its pace or did not get its goodbye: such a measurement says nothing.
    """
    order = LoadOrder(target, APP, publishers)
    with Child("tests.bench.load") as child:
        child.tell(json.dumps(asdict(order)))
        child.hear()
        joined()
        child.tell("go")
        start_ns = child.number("start_ns")
        time.sleep(max(0.0, start_ns / 1e9 - time.monotonic()) + WARM_SECONDS)
        yield
        child.tell("stop")
        facts = child.hear()
        report = LoadReport(**facts)  # type: ignore[arg-type]
        if report.goodbyes < len(publishers):
            raise RuntimeError(f"{report.goodbyes} of {len(publishers)} publishers got their goodbye")
        if report.latest_ms > _TOO_LATE_MS:
            raise RuntimeError(
                f"the publishers fell {report.latest_ms:.0f} ms behind: the machine is too busy"
            )
