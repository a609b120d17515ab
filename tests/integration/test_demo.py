"""The demo as a newcomer runs it: once, in real time, with the real service."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from roomtape_service.cli import demo
from roomtape_service.cli.main import main
from roomtape_service.demo.judgement import Judgement, judge
from roomtape_service.demo.performance import Performance, Spoken
from roomtape_service.demo.script import SCRIPT

LONGEST_SECONDS = 60


def test_all_is_well_in_under_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Performance] = []

    def judge_and_keep(performance: Performance) -> Judgement:
        seen.append(performance)
        return judge(performance)

    monkeypatch.setattr(demo, "judge", judge_and_keep)
    begun = time.monotonic()
    code = main(["demo", "--json", str(tmp_path)])
    seconds = time.monotonic() - begun
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    findings = [line for line in lines if "what" in line]
    assert [finding for finding in findings if not finding["ok"]] == []
    assert code == 0
    assert seconds < LONGEST_SECONDS

    assert lines[-1]["ok"] is True
    assert len(lines[-1]["files"]) == 2 * len(SCRIPT) + 1
    assert all(Path(path).is_relative_to(tmp_path) for path in lines[-1]["files"])
    types = [line["type"] for line in lines if "type" in line]
    assert types[0] == "EVENT_TYPE_ROOM_CREATED"
    assert types[-1] == "EVENT_TYPE_TASK_FILES_COMPLETE"

    # Had the speakers' voices been mixed up, the same files would not do.
    (performance,) = seen
    spoken = performance.spoken
    swapped = [replace(each, clip=other.clip) for each, other in zip(spoken, rotated(spoken), strict=True)]
    assert not judge(replace(performance, spoken=swapped)).ok


def rotated(items: Sequence[Spoken]) -> list[Spoken]:
    return [*items[1:], items[0]]
