"""A spool that was damaged at random: recovery takes what is whole, keeps the rest aside, and stops at nothing."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomtape_service.recording.protocol import (
    CompletedFile,
    Container,
    FrameStatistics,
    RecordingKind,
    Resume,
    TrackCodec,
)
from roomtape_service.recording.segment import SegmentWriter
from roomtape_service.spool.aside import is_aside
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.journal import JournalHeader, MediaFile
from roomtape_service.spool.recovery import RecoveredSegment, recover
from tests.support.audio import noise, opus_packets
from tests.support.recorder import EPOCH_NS

FRAME = 960
FRAMES = 30
CONTAINERS = (Container.M4A, Container.MP3, Container.WAV, Container.OGG, Container.AAC)
SIGNAL = noise(FRAMES * 0.02)


def header(recording_id: str, segment: int, containers: Sequence[Container]) -> JournalHeader:
    return JournalHeader(
        recording_id=recording_id,
        task_id="t",
        kind=RecordingKind.SINGLE,
        segment=segment,
        epoch_ns=EPOCH_NS,
        start=48_000 * segment,
        sample_rate=48_000,
        channels=1,
        bitrate=64_000,
        codec=TrackCodec.OPUS,
        files=tuple(MediaFile(each, f"{recording_id}-{segment:06d}.{each.lower()}") for each in containers),
    )


def write(folder: Path, facts: JournalHeader, *, is_last: bool) -> None:
    """A segment whose worker died, with a checkpoint every 100 ms."""
    writer = SegmentWriter(folder, facts, waits_for_disk=False)
    for index, packet in enumerate(opus_packets(SIGNAL)[:FRAMES]):
        writer.add_frame(SIGNAL[index * FRAME : (index + 1) * FRAME].tobytes(), FRAME, packet, FRAME)
        is_end = index == FRAMES - 1
        if is_end:
            writer.end()
        ready = writer.ready() // FRAME
        if ready and (index % 5 == 4 or is_end):
            resume = {"s/mic": Resume(ready, EPOCH_NS)}
            writer.checkpoint(
                ready * FRAME, resume, FrameStatistics(recorded=ready), is_last=is_end and is_last
            )
    writer.release(interrupted=True).journal.close()


@dataclass(frozen=True)
class Spool:
    root: Path
    whole: dict[tuple[str, int], RecoveredSegment]
    """What recovery makes of it when nothing is damaged."""
    closed: frozenset[str]
    """Files of segments that were closed before."""


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    base = tmp_path_factory.mktemp("damage")
    root = base / "spool"
    for generation, recordings in (("1", ("a", "b")), ("2", ("c",))):
        folder = root / generation
        folder.mkdir(parents=True)
        (folder / LOCK_NAME).touch()
        for recording_id in recordings:
            write(folder, header(recording_id, 0, CONTAINERS), is_last=True)
    recover(root)
    closed = frozenset(path.name for path in root.glob("*/*") if path.name != LOCK_NAME)
    for generation, recordings in (("1", ("a", "b")), ("2", ("c",))):
        for recording_id in recordings:
            write(root / generation, header(recording_id, 1, CONTAINERS[:2]), is_last=False)
    shutil.copytree(root, base / "whole")
    whole = {(each.recording_id, each.segment): each for each in recover(base / "whole").segments}
    assert len(whole) == 6
    return Spool(root, whole, closed)


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*") if path.is_file() and not path.is_symlink())


def tree(root: Path) -> dict[str, str]:
    """All files below it, and what is in them."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def damage(root: Path, data: st.DataObject) -> dict[str, str]:
    """Does damage; returns which file names were hit, and how."""
    hit: dict[str, str] = {}
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["truncate", "flip", "delete", "grow", "add", "copy", "link"]))
        path = data.draw(st.sampled_from(files_of(root)))
        size = path.stat().st_size
        at = data.draw(st.integers(0, max(0, size - 1)))
        match kind:
            case "truncate":
                os.truncate(path, at)
            case "flip" if size:
                content = bytearray(path.read_bytes())
                content[at] ^= 1 << data.draw(st.integers(0, 7))
                path.write_bytes(bytes(content))
            case "delete":
                path.unlink()
            case "grow":
                with path.open("ab") as file:
                    file.write(data.draw(st.binary(min_size=1, max_size=50)))
            case "link":
                path.unlink()
                path.symlink_to("/etc/hostname")
            case "add":
                name = data.draw(
                    st.sampled_from(
                        ["aside", "x", "a-000007.journal", "a-000007.wav", "lost+found", "é" * 99]
                    )
                )
                where = data.draw(st.sampled_from([root, path.parent]))
                if not os.path.lexists(where / name):
                    if data.draw(st.booleans()):
                        (where / name).mkdir()
                    else:
                        (where / name).write_bytes(data.draw(st.binary(max_size=99)))
                continue
            case "copy":
                copy = root / "9"
                if not copy.exists():
                    shutil.copytree(path.parent, copy, symlinks=True)
                continue
            case _:
                continue
        hit[path.name] = kind
    return hit


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_whole_survives_and_nothing_stops_the_rest(
    spool: Spool, tmp_path: Path, data: st.DataObject
) -> None:
    root = tmp_path / "spool"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(spool.root, root)
    hit = damage(root, data)
    before = tree(root)
    recovery = recover(root)
    found = {(each.recording_id, each.segment): each for each in recovery.segments}
    for key, whole in spool.whole.items():
        journal, *names = (path.name for path in whole.paths)
        if journal in hit:
            continue
        if not any(name in hit for name in names):
            assert same(found[key], whole)
        files = {file.container: file for file in found[key].facts.files} if key in found else {}
        for expected in whole.facts.files:
            check_file(spool, expected, files.get(expected.container), hit)
    check_kept(root, before)
    # Again there is nothing to do.
    after = tree(root)
    again = recover(root)
    assert [each for each in again.damages if each.kept is not None] == []
    assert again.segments == recovery.segments
    assert tree(root) == after


def same(one: RecoveredSegment, other: RecoveredSegment) -> bool:
    files = {(each.container, each.sha256, each.sample_count) for each in one.facts.files}
    return files == {(each.container, each.sha256, each.sample_count) for each in other.facts.files} and (
        one.facts.end_ns,
        one.facts.interrupted,
        one.facts.resume,
    ) == (other.facts.end_ns, other.facts.interrupted, other.facts.resume)


def check_file(
    spool: Spool, expected: CompletedFile, found: CompletedFile | None, hit: dict[str, str]
) -> None:
    name = Path(expected.path).name
    if name not in hit:
        assert found is not None
        assert (found.sha256, found.sample_count) == (expected.sha256, expected.sample_count)
    elif found is not None and not (name in spool.closed and found.sha256 == expected.sha256):
        assert found.sample_count <= expected.sample_count
        data = Path(found.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (found.size, found.sha256)
        if found.container is Container.WAV:
            samples = np.frombuffer(data[44:], np.int16)
            whole = np.frombuffer(Path(expected.path).read_bytes()[44:], np.int16)
            assert np.array_equal(samples, whole[: found.sample_count])


def check_kept(root: Path, before: dict[str, str]) -> None:
    """What is no segment is aside, as it was."""
    kept = {content for name, content in tree(root).items() if is_aside(Path(name).parts[0])}
    assert kept <= set(before.values())
