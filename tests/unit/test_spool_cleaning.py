"""What is removed from the spool, and what is not."""

from pathlib import Path

from roomtape_service.spool.cleaning import remove_empty_folders
from roomtape_service.spool.generation import LOCK_NAME, Generation


def test_folders_of_the_dead_that_hold_nothing_go(tmp_path: Path) -> None:
    names = ("dead", "living", "recorded", "aside", ".departed")
    generations = {name: Generation(tmp_path, name) for name in names}
    for generation in generations.values():
        generation.open()
    (tmp_path / "recorded" / "r-000000.wav").write_bytes(b"RIFF")
    (tmp_path / "foreign").mkdir()
    for name, generation in generations.items():
        if name != "living":
            generation.close()
    remove_empty_folders(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"living", "recorded", "aside", ".departed", "foreign"}
    assert (tmp_path / "living" / LOCK_NAME).exists()
    generations["living"].close()
    remove_empty_folders(tmp_path)
    assert not (tmp_path / "living").exists()
