"""What a manifest contradicts in itself: pure checks, without a look at any file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.holes import MIXED
from roomtape_service.manifest.model import File, Manifest, Recording, Segment
from roomtape_service.manifest.reading import is_as_written

__all__ = ["GONE", "STORED", "UNFINISHED", "Finding", "check_document", "check_manifest", "name_of"]

STORED = "UPLOADED"
UNFINISHED = frozenset({"RECORDING", "SPOOLED", "UPLOADING"})
"""States of files that are in no store yet."""
GONE = frozenset({"DELETED", "EXPIRED"})
"""States of files that were taken out of their store by the library."""

_GIVEN_UP = frozenset({"LOST", "ABANDONED"})
_OVERLAP_NS = NANOSECONDS // 1000
"""Opus packets that pass through are on a grid of 2.5 ms at most; less than half of it is rounding."""
_LENGTH_SLACK_NS = 5 * NANOSECONDS // 2000
"""Files that hold Opus packets as they came end within 2.5 ms of the segment."""
_UNIT_SAMPLES = 1024
"""A stream of AAC units as they came ends within one of them."""
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: of what, and what is wrong."""

    about: str
    problem: str


def name_of(recording: Recording) -> str:
    """A recording for people: `the mix` or its user."""
    return "the mix" if recording.kind == MIXED else f"user {recording.user_id!r}"


def check_document(data: bytes, *, sha256: str = "", actual_sha256: str = "") -> Iterator[Finding]:
    """Whether the bytes are those that the service wrote; `sha256` is what the server says of them, if it was asked."""
    if not is_as_written(data):
        yield Finding("the manifest", "it was changed after it was written: its last line is not its digest")
    if sha256 and sha256 != actual_sha256:
        yield Finding("the manifest", f"its SHA-256 is {actual_sha256}, the server says {sha256}")


def check_manifest(manifest: Manifest) -> Iterator[Finding]:
    """What the manifest says that can't be, or that is not well."""
    keys = Counter(
        (file.store, file.object_key)
        for recording in manifest.recordings
        for file in _files(recording)
        if file.object_key
    )
    for (_, key), count in keys.items():
        if count > 1:
            yield Finding(key, f"{count} files have this key")
    if manifest.complete:
        yield from _check_complete(manifest)
    for recording in manifest.recordings:
        yield from _check_recording(manifest, recording)


def _files(recording: Recording) -> Iterator[File]:
    for segment in recording.segments:
        yield from segment.files
    yield from recording.joined_files


def _check_complete(manifest: Manifest) -> Iterator[Finding]:
    if manifest.stop_ns is None or manifest.complete_ns is None:
        yield Finding("the task", "it is complete without having stopped")
    for recording in manifest.recordings:
        if recording.end_ns is None:
            yield Finding(name_of(recording), "the task is complete, and the recording has not ended")
        for segment in recording.segments:
            for file in segment.files:
                if file.state in UNFINISHED:
                    yield Finding(file.object_key, f"the task is complete, and the file is {file.state}")


def _check_recording(manifest: Manifest, recording: Recording) -> Iterator[Finding]:
    about = name_of(recording)
    numbers = [segment.segment_id for segment in recording.segments]
    if numbers != list(range(len(numbers))):
        yield Finding(about, f"its segments are not numbered from 0 without a hole: {_shown(numbers)}")
    for before, after in pairwise(recording.segments):
        yield from _check_order(about, before, after)
    for segment in recording.segments:
        yield from _check_segment(about, segment)
    for file in recording.joined_files:
        yield from _check_file(file)
    for interruption in recording.interruptions:
        if interruption.segment_id not in numbers:
            yield Finding(about, f"segment {interruption.segment_id} was interrupted, and is not there")
    for gap in recording.gaps:
        if gap.end_ns < gap.start_ns:
            yield Finding(about, "a gap ends before it begins")
    if manifest.room.epoch_ns is None and recording.segments:
        yield Finding(about, "it has segments in a room whose time never began")


def _check_order(about: str, before: Segment, after: Segment) -> Iterator[Finding]:
    end_ns = before.end_ns if before.end_ns is not None else before.start_ns
    if before.end_ns is None and any(file.state in UNFINISHED for file in before.files):
        # It grows on another worker than the next: only what is finished can be compared.
        return
    if after.start_ns < before.start_ns:
        yield Finding(about, f"segment {after.segment_id} begins before segment {before.segment_id}")
    elif end_ns - after.start_ns > _OVERLAP_NS:
        overlap_ms = (end_ns - after.start_ns) / 1e6
        yield Finding(
            about, f"segments {before.segment_id} and {after.segment_id} overlap by {overlap_ms:.3f} ms"
        )


def _check_segment(about: str, segment: Segment) -> Iterator[Finding]:
    if not segment.files:
        yield Finding(about, f"segment {segment.segment_id} has no file")
    containers = [file.container for file in segment.files]
    if len(set(containers)) != len(containers):
        yield Finding(about, f"segment {segment.segment_id} has two files of one container")
    for file in segment.files:
        if file.start_ns != segment.start_ns:
            yield Finding(file.object_key, "it does not begin where its segment does")
        yield from _check_file(file)


def _check_file(file: File) -> Iterator[Finding]:
    about = file.object_key
    if file.state in _GIVEN_UP:
        yield Finding(about, f"its media never came into a store: {file.state}")
    if file.state in UNFINISHED or file.state in _GIVEN_UP:
        return
    if file.end_ns is None or file.sample_rate_hz <= 0 or file.channels <= 0:
        yield Finding(about, f"it is {file.state}, and its end, rate or channels are not told")
        return
    if file.size_bytes <= 0 or len(file.sha256) != _SHA256_DIGITS:
        yield Finding(about, f"it is {file.state}, and its size or SHA-256 is not told")
    said_ns = file.end_ns - file.start_ns
    counted_ns = file.sample_count * NANOSECONDS // file.sample_rate_hz
    is_aac_as_it_came = file.container == "AAC" and not file.encoder_delay_samples
    unit_ns = _UNIT_SAMPLES * NANOSECONDS // file.sample_rate_hz if is_aac_as_it_came else 0
    if abs(said_ns - counted_ns) > max(_LENGTH_SLACK_NS, unit_ns):
        yield Finding(
            about, f"it lasts {said_ns / 1e9:.6f} s by its times and {counted_ns / 1e9:.6f} s by its samples"
        )


def _shown(numbers: list[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return text if len(numbers) <= 10 else f"{text}, …"
