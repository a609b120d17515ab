"""Which holes between segments are explained, by what, and which are not; and what a manifest can't say."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.findings import check_manifest
from roomtape_service.manifest.holes import holes_of
from roomtape_service.manifest.model import (
    File,
    Gap,
    Interruption,
    LastSequence,
    Manifest,
    Mute,
    Output,
    Participant,
    Recording,
    Room,
    Scope,
    Segment,
    Track,
)
from roomtape_service.manifest.spans import FOREVER_NS, clipped, merged, without

START_NS = 1_700_000_000 * NANOSECONDS


def at(seconds: float) -> int:
    return START_NS + round(seconds * NANOSECONDS)


def stay(
    user_id: str, join: float, leave: float | None, *mutes: tuple[float, float], session: str = "s"
) -> Participant:
    spans = tuple(Mute(at(start), at(end)) for start, end in mutes)
    track = Track("mic", "MAIN", "OPUS", 48_000, 1, spans)
    return Participant(user_id, session, at(join), None if leave is None else at(leave), (track,))


def segment(
    number: int,
    start: float,
    end: float,
    last: int,
    *,
    recorded: int = 50,
    lost: int = 0,
    user_id: str = "ada",
    session: str = "s",
) -> Segment:
    file = File(
        file_id=f"f{number}",
        container="WAV",
        codec="PCM_S16LE",
        state="UPLOADED",
        object_key=f"folder/{user_id}{number}.wav",
        store="disk:app",
        url="file:///x",
        start_ns=at(start),
        end_ns=at(end),
        sample_rate_hz=48_000,
        channels=1,
        sample_count=round((end - start) * 48_000),
        encoder_delay_samples=0,
        size_bytes=1,
        sha256="0" * 64,
    )
    sequences = (LastSequence(user_id, session, "mic", last),)
    counts = {"recorded": recorded, "lost": lost, "rejected": 0}
    return Segment(number, at(start), at(end), False, (file,), counts, sequences)


def manifest(
    segments: Sequence[Segment],
    stays: Sequence[Participant],
    *,
    kind: str = "SINGLE",
    scopes: Sequence[Scope] = (Scope(None, "SINGLE_AND_MIXED"),),
    gaps: Sequence[Gap] = (),
) -> Manifest:
    user_id = "ada" if kind == "SINGLE" else ""
    recording = Recording("r", kind, user_id, at(0), at(100), tuple(segments), (), tuple(gaps))
    return Manifest(
        version=1,
        service_version="1",
        app_id="app",
        room_id="room",
        task_id="1",
        client_task_id="",
        object_key="folder/1/manifest.json",
        complete=True,
        state="COMPLETED",
        mode="SINGLE_AND_MIXED",
        stop_reason="API",
        labels={},
        start_ns=at(0),
        stop_ns=at(100),
        complete_ns=at(101),
        output=Output(("WAV",), ("WAV",), 7200 * NANOSECONDS, 64_000),
        room=Room("ARRIVAL", at(0), None, at(0)),
        scopes=tuple(scopes),
        participants=tuple(stays),
        recordings=(recording,),
    )


TWO = (segment(0, 0, 10, 50), segment(1, 40, 50, 100))
"""Nothing from 10 s to 40 s, and no frame missing."""
LOSSY = (segment(0, 0, 10, 50), segment(1, 40, 50, 110))
"""The same with ten frames missing."""
BEN = (segment(0, 0, 10, 50), segment(1, 40, 50, 110, user_id="ben"))


@pytest.mark.parametrize(
    ("known", "reasons"),
    [
        (manifest(TWO, [stay("ada", 0, 100)]), ("silent",)),
        (manifest(LOSSY, [stay("ada", 0, 10), stay("ada", 40, 100)]), ("absent",)),
        (manifest(LOSSY, [stay("ada", 0, 11.5), stay("ada", 38, 100)]), ("absent",)),
        (manifest(LOSSY, [stay("ada", 0, 100, (10, 40))]), ("muted",)),
        (manifest(LOSSY, [stay("ada", 0, 100, (10, 20), (20, 41))]), ("muted",)),
        (manifest(LOSSY, [stay("ada", 0, 25, (10, 25)), stay("ada", 40, 100)]), ("absent", "muted")),
        (manifest(TWO, [stay("ada", 0, 25), stay("ada", 32, 100)]), ("absent", "silent")),
        (
            manifest(LOSSY, [stay("ada", 0, 100)], gaps=[Gap("ada", at(10), at(40), "PUBLISHER_LOST")]),
            ("gap (PUBLISHER_LOST)",),
        ),
        (
            manifest(
                LOSSY,
                [stay("ada", 0, 100)],
                scopes=[
                    Scope(None, "SINGLE"),
                    Scope(at(10), "SINGLE", block_user_ids=("ada",)),
                    Scope(at(20), "MIXED"),
                    Scope(at(30), "SINGLE", allow_user_ids=("ben",)),
                    Scope(at(40), "SINGLE"),
                ],
            ),
            ("not taken",),
        ),
        (
            manifest(
                [TWO[0], segment(1, 40, 50, 50, session="t")],
                [stay("ada", 0, 39), stay("ada", 39, 100, session="t")],
            ),
            ("silent",),
        ),
        (manifest(BEN, [stay("ada", 0, 10), stay("ben", 40, 100)], kind="MIXED"), ("absent",)),
        (
            manifest(BEN, [stay("ada", 0, 100, (10, 100)), stay("ben", 40, 100)], kind="MIXED"),
            ("muted",),
        ),
        (
            manifest(
                BEN,
                [stay("ada", 0, 100, (10, 100)), stay("ben", 0, 100)],
                kind="MIXED",
                scopes=[Scope(None, "MIXED", block_user_ids=("ben",)), Scope(at(40), "MIXED")],
            ),
            ("not taken",),
        ),
    ],
)
def test_what_explains_a_hole(known: Manifest, reasons: tuple[str, ...]) -> None:
    (hole,) = holes_of(known, known.recordings[0])
    assert (hole.after, hole.start_ns, hole.end_ns) == (0, at(10), at(40))
    assert (set(hole.reasons), hole.unexplained) == (set(reasons), "")


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (manifest(LOSSY, [stay("ada", 0, 100)]), "up to 10 frames are missing"),
        (manifest(LOSSY, [stay("ada", 0, 100, (10, 30))]), "up to 10 frames are missing"),
        (manifest(LOSSY, [stay("ada", 0, 20), stay("ada", 40, 100)]), "up to 10 frames are missing"),
        (
            manifest([TWO[0], segment(1, 40, 50, 100, recorded=40, lost=10)], [stay("ada", 0, 100)]),
            "up to 10 frames are missing",
        ),
        (
            manifest(LOSSY, [stay("ada", 0, 100)], gaps=[Gap("ada", at(10), at(30), "INTERRUPTED")]),
            "up to 10 frames are missing",
        ),
        (
            manifest([TWO[0], segment(1, 40, 50, 50, session="t")], [stay("ada", 0, 100)]),
            "what 'ada' published in it can't be told",
        ),
        (
            manifest(BEN, [stay("ada", 0, 100), stay("ben", 0, 100)], kind="MIXED"),
            "what 'ben' published in it can't be told",
        ),
    ],
)
def test_what_nothing_explains(known: Manifest, told: str) -> None:
    (hole,) = holes_of(known, known.recordings[0])
    assert hole.unexplained == told


def test_segments_that_follow_each_other_have_no_hole() -> None:
    known = manifest([segment(0, 0, 10, 50), segment(1, 10.0005, 20, 100)], [stay("ada", 0, 100)])
    assert holes_of(known, known.recordings[0]) == []


def test_of_what_is_not_finished_nothing_is_said() -> None:
    growing = replace(TWO[1], end_ns=None, statistics={}, last_sequences=())
    known = manifest([TWO[0], growing], [stay("ada", 0, 100)])
    assert holes_of(known, known.recordings[0]) == []


def with_segments(*segments: Segment) -> Manifest:
    return manifest(segments, [stay("ada", 0, 100)])


def with_file(**changes: object) -> Manifest:
    first = TWO[0]
    file = replace(first.files[0], **changes)  # type: ignore[arg-type]
    return with_segments(replace(first, files=(file,)))


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (with_segments(TWO[0], replace(TWO[1], segment_id=2)), "not numbered from 0 without a hole: 0, 2"),
        (with_segments(segment(0, 0, 10, 50), segment(1, 9, 20, 100)), "overlap by 1000.000 ms"),
        (with_segments(segment(0, 30, 40, 50), segment(1, 0, 10, 100)), "begins before segment 0"),
        (with_segments(replace(TWO[0], files=())), "has no file"),
        (with_segments(replace(TWO[0], files=TWO[0].files * 2)), "two files of one container"),
        (with_segments(replace(TWO[0], start_ns=at(1))), "does not begin where its segment does"),
        (with_file(sample_count=1), "s by its samples"),
        (with_file(sha256=""), "its size or SHA-256 is not told"),
        (with_file(sample_rate_hz=0), "rate or channels are not told"),
        (with_file(state="SPOOLED"), "the task is complete, and the file is SPOOLED"),
        (with_file(state="LOST"), "its media never came into a store: LOST"),
        (with_file(state="ABANDONED"), "its media never came into a store: ABANDONED"),
        (replace(with_segments(TWO[0]), stop_ns=None), "complete without having stopped"),
        (
            replace(with_segments(TWO[0]), room=Room("MEDIA", at(0), None, None)),
            "in a room whose time never began",
        ),
    ],
)
def test_what_a_manifest_can_not_say(known: Manifest, told: str) -> None:
    problems = [each.problem for each in check_manifest(known)]
    assert any(told in problem for problem in problems), problems


def test_a_recording_that_contradicts_its_task() -> None:
    known = with_segments(TWO[0])
    running = replace(known.recordings[0], end_ns=None)
    foreign = replace(known.recordings[0], interruptions=(Interruption(7, "NODE_LOST", at(1)),))
    backwards = replace(known.recordings[0], gaps=(Gap("ada", at(2), at(1), "INTERRUPTED"),))
    for recording, told in (
        (running, "the recording has not ended"),
        (foreign, "segment 7 was interrupted, and is not there"),
        (backwards, "a gap ends before it begins"),
    ):
        (finding,) = check_manifest(replace(known, recordings=(recording,)))
        assert told in finding.problem


def test_deleted_and_expired_files_are_well() -> None:
    for state in ("DELETED", "EXPIRED"):
        assert list(check_manifest(with_file(state=state))) == []


def test_spans() -> None:
    spans = merged([(5, 6), (1, 3), (2, 4), (4, 5), (9, 9), (8, 10)])
    assert spans == [(1, 6), (8, 10)]
    assert clipped(spans, (2, 9)) == [(2, 6), (8, 9)]
    assert clipped(spans, (6, 8)) == []
    assert without((0, 12), spans) == [(0, 1), (6, 8), (10, 12)]
    assert without((2, 5), spans) == []
    assert without((0, FOREVER_NS), []) == [(0, FOREVER_NS)]
