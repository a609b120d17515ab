"""What watchers are promised holds whatever happens: schedules of calls, kills, stops, and watchers of all kinds.

Each schedule is played with real nodes on SQLite and on PostgreSQL, and what went over the wire is checked promise by
promise. `WATCH_SCHEDULES` chooses how many are played on each; without it a few, always the same.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from roomtape.v1 import event_pb2
from tests.support.warm_nodes import WarmNodes
from tests.support.watch_guarantees import GUARANTEES
from tests.support.watch_play import (
    MOST_WATCHERS,
    Cancel,
    GoOn,
    Hear,
    Pause,
    Play,
    Record,
    Restart,
    Step,
    Watch,
)

SCHEDULES = int(os.environ.get("WATCH_SCHEDULES", "0"))
SHORT_SCHEDULES = 3
# So short that schedules have watchers that are let go for reading nothing.
STALL_SECONDS = 1


_anyone = st.integers(0, MOST_WATCHERS - 1)
_watches = st.builds(
    Watch,
    st.sampled_from(["all", "room", "types", "label", "task", "tasks"]),
    st.sampled_from(
        [event_pb2.WATCH_ORIGIN_NOW, event_pb2.WATCH_ORIGIN_OLDEST, event_pb2.WATCH_ORIGIN_SNAPSHOT]
    ),
    st.booleans(),
)
_records = st.builds(Record, st.integers(1, 6), st.integers(0, 12))
_disturbances = st.one_of(
    st.builds(Pause, _anyone),
    st.builds(GoOn, _anyone),
    st.builds(Cancel, _anyone, st.integers(0, 30)),
    st.builds(Hear, _anyone),
    _watches,
)


@st.composite
def schedules(draw: st.DrawFn) -> Sequence[Step]:
    """Watchers, then recordings with disturbances and at least one restart in between."""
    steps: list[Step] = draw(st.lists(_watches, min_size=2, max_size=3))
    for _ in range(draw(st.integers(2, 4))):
        steps += draw(st.lists(_disturbances, max_size=3))
        steps.append(draw(_records))
        steps += draw(st.lists(_disturbances, max_size=2))
        steps += [Restart(draw(st.booleans()))] * draw(st.integers(0, 1))
    steps.append(Restart(kills=draw(st.booleans())))
    return steps


@pytest.mark.timeout(120 + 30 * SCHEDULES)
def test_what_watchers_are_promised_holds(database_url: str, tmp_path: Path) -> None:
    nodes = WarmNodes(tmp_path, database_url=database_url, watch_stall_seconds=STALL_SECONDS)
    play = Play(nodes)

    @settings(
        max_examples=SCHEDULES or SHORT_SCHEDULES,
        derandomize=not SCHEDULES,
        database=None,
        deadline=None,
        # A schedule takes seconds, and what went wrong in it is in the traffic.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules())
    def holds(schedule: Sequence[Step]) -> None:
        traffic = runner.run(play.run(schedule))
        for guarantee in GUARANTEES:
            guarantee(traffic)

    with asyncio.Runner() as runner:
        runner.run(nodes.__aenter__())
        try:
            holds()
        finally:
            runner.run(nodes.__aexit__(None, None, None))
    print(f"{play.streams} streams, {play.messages} messages, {play.restarts} restarts")
