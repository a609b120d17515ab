"""Journals: whatever is whole of them is true, and recovery makes of it what a regular end would have made."""

import hashlib
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomtape_service.recording.plain import to_plain
from roomtape_service.recording.protocol import Container, FrameStatistics, RecordingKind, Resume, TrackCodec
from roomtape_service.recording.segment import SegmentWriter
from roomtape_service.spool.finishing import finish_segment
from roomtape_service.spool.generation import LOCK_NAME, Generation
from roomtape_service.spool.journal import (
    Checkpoint,
    JournalHeader,
    JournalWriter,
    MediaFile,
    encode_record,
    read_journal,
)
from roomtape_service.spool.recovery import ASIDE_NAME, recover
from tests.support.audio import ffmpeg_decode, noise, opus_packets
from tests.support.recorder import EPOCH_NS, SECOND

FRAME = 960
FRAMES = 40


def header(*containers: Container, segment: int = 0) -> JournalHeader:
    return JournalHeader(
        recording_id="r",
        task_id="t",
        kind=RecordingKind.SINGLE,
        segment=segment,
        epoch_ns=EPOCH_NS,
        start=48_000,
        sample_rate=48_000,
        channels=1,
        bitrate=64_000,
        codec=TrackCodec.OPUS,
        files=tuple(MediaFile(each, f"r-{segment:06d}.{each.lower()}") for each in containers),
        resume={"before/mic": Resume(9, 10)},
    )


def written(folder: Path, *, is_last: bool = False) -> tuple[Path, list[Checkpoint]]:
    """A segment in all containers whose worker died, and its checkpoints."""
    folder.mkdir(parents=True)
    (folder / LOCK_NAME).touch()
    facts = header(Container.WAV, Container.MP3, Container.OGG, Container.M4A)
    segment = SegmentWriter(folder, facts, waits_for_disk=False)
    signal = noise(FRAMES * 0.02)
    checkpoints: list[Checkpoint] = []
    for index, packet in enumerate(opus_packets(signal)[:FRAMES]):
        pcm = signal[index * FRAME : (index + 1) * FRAME].tobytes()
        segment.add_frame(pcm, FRAME, packet, FRAME)
        is_end = index == FRAMES - 1
        if is_end:
            segment.end()
        ready = segment.ready() // FRAME
        if ready and (index % 5 == 0 or is_end):
            resume = {"s/mic": Resume(ready, EPOCH_NS)}
            statistics = FrameStatistics(recorded=ready)
            segment.checkpoint(ready * FRAME, resume, statistics, is_last=is_end and is_last)
            assert segment.last is not None
            checkpoints.append(segment.last)
    segment.release(interrupted=True).journal.close()
    return folder / "r-000000.journal", checkpoints


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Checkpoint]]:
    return written(tmp_path_factory.mktemp("dead") / "generation")


def test_a_dead_worker_s_segment_ends_at_its_last_checkpoint(
    dead: tuple[Path, list[Checkpoint]], tmp_path: Path
) -> None:
    journal, checkpoints = dead
    shutil.copytree(journal.parent, tmp_path / "spool" / "generation")
    [segment] = recover(tmp_path / "spool").segments
    last = checkpoints[-1]
    facts = segment.completed()
    assert (segment.recording_id, segment.task_id, segment.segment, segment.kind) == ("r", "t", 0, "SINGLE")
    assert facts.interrupted
    assert segment.started().start_ns == facts.start_ns == EPOCH_NS + SECOND
    assert facts.end_ns == facts.start_ns + last.samples * SECOND // 48_000
    assert facts.sample_count == last.samples
    assert facts.statistics == last.statistics
    assert facts.resume == {"before/mic": Resume(9, 10), **last.resume}
    for file in facts.files:
        data = Path(file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
        assert len(ffmpeg_decode(file.path)) == file.sample_count == last.samples
    # Again it is found as it is.
    assert recover(tmp_path / "spool").segments == [segment]


def test_recovery_makes_what_the_regular_end_makes(tmp_path: Path) -> None:
    journal, checkpoints = written(tmp_path / "spool" / "generation", is_last=True)
    shutil.copytree(journal.parent, tmp_path / "regular")
    content = read_journal(journal)
    assert content is not None
    regular = finish_segment(
        tmp_path / "regular",
        content.header,
        checkpoints[-1],
        {"s/mic": Resume(40, EPOCH_NS)},
        interrupted=False,
    )
    [segment] = recover(tmp_path / "spool").segments
    assert not segment.interrupted
    assert [file.sha256 for file in segment.completed().files] == [file.sha256 for file in regular.files]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_journal_that_breaks_off_anywhere_is_true_as_far_as_it_goes(
    dead: tuple[Path, list[Checkpoint]], tmp_path: Path, data: st.DataObject
) -> None:
    journal, checkpoints = dead
    whole = journal.read_bytes()
    # Where the first checkpoint ends, most can go wrong.
    size = data.draw(
        st.integers(0, len(whole)) | st.integers(0, 1500).map(lambda each: min(each, len(whole)))
    )
    spool = tmp_path / str(size)
    if spool.exists():
        shutil.rmtree(spool)
    shutil.copytree(journal.parent, spool / "generation")
    (spool / "generation" / journal.name).write_bytes(whole[:size])
    lines = whole[:size].count(b"\n")
    segments = recover(spool).segments
    assert recover(spool).segments == segments
    left = {path.name for path in (spool / "generation").iterdir()} - {LOCK_NAME}
    if lines < 2:
        # Without a checkpoint it never was a segment; media that no header speaks of is set aside.
        assert segments == []
        assert left == set()
        assert bool(list(spool.glob(f"{ASIDE_NAME}/*"))) == (lines == 0)
        return
    [segment] = segments
    last = checkpoints[lines - 2]
    assert segment.completed().sample_count == last.samples
    assert segment.resume["s/mic"] == last.resume["s/mic"]
    for file in segment.completed().files:
        assert file.sample_count == last.samples
        assert Path(file.path).stat().st_size == file.size


def test_a_damaged_line_hides_no_other(dead: tuple[Path, list[Checkpoint]], tmp_path: Path) -> None:
    journal, checkpoints = dead
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"samples", b"sampels")
    path = tmp_path / "damaged.journal"
    path.write_bytes(b"".join(lines))
    content = read_journal(path)
    assert content is not None
    assert content.checkpoints == [checkpoints[0], *checkpoints[2:]]
    assert content.whole_bytes == sum(map(len, lines))


def test_a_file_of_which_the_disk_lost_the_end_is_cut_to_an_older_checkpoint(
    dead: tuple[Path, list[Checkpoint]], tmp_path: Path
) -> None:
    journal, checkpoints = dead
    shutil.copytree(journal.parent, tmp_path / "spool" / "generation")
    wav = tmp_path / "spool" / "generation" / "r-000000.wav"
    os.truncate(wav, checkpoints[2].sizes[0] + 10)
    [segment] = recover(tmp_path / "spool").segments
    facts, whole = segment.completed(), checkpoints[-1].samples
    assert facts.interrupted
    assert facts.sample_count == whole
    assert facts.resume["s/mic"] == checkpoints[-1].resume["s/mic"]
    lengths = {file.container: len(ffmpeg_decode(file.path)) for file in facts.files}
    cut = checkpoints[2].samples
    others = dict.fromkeys((Container.MP3, Container.OGG, Container.M4A), whole)
    assert lengths == {Container.WAV: cut, **others}
    ends = [file.end_ns for file in facts.files]
    assert ends == [facts.start_ns + cut * SECOND // 48_000, None, None, None]
    assert list(segment.faults) == [Container.WAV]
    assert recover(tmp_path / "spool").segments == [segment]


def test_what_is_no_segment_is_set_aside(dead: tuple[Path, list[Checkpoint]], tmp_path: Path) -> None:
    journal, _ = dead
    folder = tmp_path / "spool" / "generation"
    shutil.copytree(journal.parent, folder)
    for each in ("wav", "mp3", "ogg", "m4a"):
        (folder / f"r-000000.{each}").write_bytes(b"RIFF")
    (folder / "foreign.txt").write_text("hello")
    assert recover(tmp_path / "spool").segments == []
    aside = {path.name.removeprefix("generation-") for path in (tmp_path / "spool" / ASIDE_NAME).iterdir()}
    assert aside == {"foreign.txt", *(f"r-000000.{each}" for each in ("journal", "wav", "mp3", "ogg", "m4a"))}
    assert recover(tmp_path / "spool").segments == []


def test_a_living_worker_s_folder_is_left_alone(tmp_path: Path) -> None:
    generation = Generation(tmp_path, "alive")
    generation.open()
    (generation.folder / "anything").touch()
    assert recover(tmp_path).segments == []
    assert (generation.folder / "anything").exists()
    generation.close()
    generation.close()
    assert recover(tmp_path).segments == []
    assert not (generation.folder / "anything").exists()


def test_no_spool_has_no_segments(tmp_path: Path) -> None:
    assert recover(tmp_path / "none").segments == []


def test_the_quick_way_to_write_a_checkpoint_is_the_general_one() -> None:
    record = Checkpoint(5, (1, 2), {'a"é/b': Resume(3, -4)}, FrameStatistics(1, 2, 3, 4, 5), True, (8, 9))
    general = json.dumps({"record": "checkpoint", **dict(to_plain(record))}, separators=(",", ":"))  # type: ignore[call-overload]
    assert encode_record(record)[9:-1].decode() == general


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "full.journal"
    journal = JournalWriter(str(path))
    journal.append(header(Container.WAV, Container.MP3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match=r"No space left|too large"):
                journal.append(Checkpoint(1, (2, 2), {}, FrameStatistics()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append(Checkpoint(3, (4, 4), {}, FrameStatistics()))
    journal.close()
    content = read_journal(path)
    assert content is not None
    assert [each.samples for each in content.checkpoints] == [3]


@pytest.mark.parametrize("kept_bytes", [0, 1, 100])
def test_files_that_were_finished_before_a_crash_are_whole(
    dead: tuple[Path, list[Checkpoint]], tmp_path: Path, kept_bytes: int
) -> None:
    """The closing record is not there, or torn: heads and the last page are written already."""
    journal, _ = dead
    shutil.copytree(journal.parent, tmp_path / "spool" / "generation")
    whole = (tmp_path / "spool" / "generation" / journal.name).stat().st_size
    [segment] = recover(tmp_path / "spool").segments
    os.truncate(tmp_path / "spool" / "generation" / journal.name, whole + kept_bytes)
    again = recover(tmp_path / "spool")
    assert again.segments == [segment]
    assert again.damages == []


def test_a_spool_from_another_time_is_recovered_all_the_same(
    dead: tuple[Path, list[Checkpoint]], tmp_path: Path
) -> None:
    """Names of folders are times of a clock that may have been set back or forth between two processes."""
    journal, _ = dead
    generation = "09999999999999999999-0-1"
    shutil.copytree(journal.parent, tmp_path / "spool" / generation)
    for path in (tmp_path / "spool" / generation).iterdir():
        os.utime(path, (0, 0))
    (tmp_path / "spool" / "00000000000000000000-0-2").mkdir()
    (tmp_path / "spool" / "00000000000000000000-0-2" / LOCK_NAME).touch()
    [segment] = recover(tmp_path / "spool").segments
    assert segment.folder.name == generation


def test_a_segment_that_is_abandoned_before_its_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    facts = header(Container.WAV, Container.MP3, Container.OGG)
    segment = SegmentWriter(tmp_path, facts, waits_for_disk=False)
    assert len(list(tmp_path.iterdir())) == 4
    segment.abandon()
    assert list(tmp_path.iterdir()) == []
