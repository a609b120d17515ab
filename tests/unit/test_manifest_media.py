"""What the files of a manifest play."""

from pathlib import Path

import pytest

from roomtape_service.manifest.media import Media, measure
from roomtape_service.recording.vocabulary import Container
from tests.support.aac_files import UNIT, passed_aac
from tests.support.audio import aac_units, tone


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_last_segment_of_aac_may_have_few_units(tmp_path: Path, count: int) -> None:
    units = aac_units(tone(440, 0.5, channels=2))
    path = tmp_path / "object"
    passed_aac(path, Container.AAC, units[:count], 48_000, 2)
    assert measure(path, "AAC") == Media("aac", 48_000, 2, count * UNIT)
