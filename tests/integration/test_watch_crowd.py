"""Many watchers in other processes, some of whom read nothing for a while: all get everything, the node stays small.

`WATCH_CROWD=1` is the whole measure: 1,000 watchers, 100 of whom read nothing, and 10,000 events.
"""

import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from tests.support.warm_nodes import APP, WarmNodes
from tests.support.watch_crowds import EVENTS_A_ROOM, MIB, MemoryWatch, crowd_of, make_events

WHOLE = bool(os.environ.get("WATCH_CROWD"))
PROCESSES = 2
WATCHERS, STALLED, ROOMS = (1000, 100, 1429) if WHOLE else (100, 10, 60)
EVENTS = ROOMS * EVENTS_A_ROOM
# Several times what is sent to a watcher who reads nothing.
LABEL_CHARACTERS = 250
STALL_SECONDS = 60 if WHOLE else 1
# Buffers of streams that wait, and of the log's newest events: nothing that grows with what watchers have not read.
MOST_GROWTH_BYTES = 48 * MIB


@pytest.mark.timeout(3600 if WHOLE else 120)
async def test_watchers_who_read_nothing_cost_nobody_an_event_and_the_node_no_memory(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(WarmNodes(tmp_path, watch_stall_seconds=STALL_SECONDS))
        crowds = [
            await stack.enter_async_context(
                crowd_of(
                    nodes.target,
                    APP,
                    WATCHERS // PROCESSES,
                    stalled=STALLED // PROCESSES,
                    events=EVENTS,
                )
            )
            for _ in range(PROCESSES)
        ]
        for crowd in crowds:
            assert (await crowd.hear())["open"] == WATCHERS // PROCESSES
        memory = MemoryWatch(nodes.pid)
        started = time.monotonic()
        await make_events(nodes.target, APP, ROOMS, label_characters=LABEL_CHARACTERS)
        made = time.monotonic()
        # Their windows are full, and they are let go, each for itself; what they missed comes when they resume.
        await eventually(
            lambda: nodes.logged("watch_stalled") >= STALLED,
            "all who read nothing are let go",
            timeout_seconds=3 * STALL_SECONDS + 30,
        )
        for crowd in crowds:
            crowd.wake()
        facts = [await crowd.hear() for crowd in crowds]
        growth = await memory.stop()
    seconds = time.monotonic() - started
    resumes = sum(fact["resumes"] for fact in facts)
    print(
        f"{WATCHERS * EVENTS} deliveries in {seconds:.1f} s, the events in {made - started:.1f} s; "
        f"{resumes} resumed; {memory.first_bytes / MIB:.0f} MiB and {growth / MIB:.1f} MiB more"
    )
    assert sum(fact["events"] for fact in facts) == WATCHERS * EVENTS
    assert {fact["first"] for fact in facts} == {1}
    assert resumes >= STALLED
    assert growth < MOST_GROWTH_BYTES
