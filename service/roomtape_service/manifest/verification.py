"""Proves a task's files against its manifest.

1. The document is the one that was written, and does not contradict itself.
2. Each file that it says is stored is there, with its size and SHA-256, and decodes to exactly its samples.
3. Segments of a recording follow each other, and every hole between them has a reason.
4. Where the store can be listed: nothing of the task is there that the manifest does not name.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from roomtape_service.manifest.findings import (
    STORED,
    Finding,
    check_document,
    check_manifest,
    name_of,
)
from roomtape_service.manifest.holes import Hole, holes_of
from roomtape_service.manifest.media import MediaError, compare, measure
from roomtape_service.manifest.model import File, Manifest, Recording
from roomtape_service.manifest.reading import ManifestError, read_manifest

__all__ = ["CheckedFile", "NotThere", "Objects", "Report", "verify"]

_PARALLEL_FILES = 4


class NotThere(Exception):
    """An object that can't be had; the text says why."""


class Objects(Protocol):
    """Where the files are."""

    async def fetch(self, file: File, scratch: Path) -> Path:
        """The object as a file, which may be a new one in the folder `scratch`. Raises NotThere."""
        ...

    async def unnamed(self, manifest: Manifest) -> Sequence[str]:
        """Keys of what is there of the task, or of nobody, and not named by the manifest; none if it can't be told."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file and what is wrong with it. `was_checked` is False for one that is not in a store by the manifest."""

    recording: Recording
    segment_id: int
    file: File
    was_checked: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found; everything is well when there is no finding."""

    manifest: Manifest | None
    findings: Sequence[Finding]
    files: Sequence[CheckedFile] = ()
    holes: Sequence[tuple[Recording, Hole]] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether everything is well. Of a task that runs that is what there is so far."""
        return not self.findings


async def verify(
    data: bytes,
    objects: Objects,
    *,
    sha256: str = "",
    told: Callable[[CheckedFile], None] = lambda _checked: None,
) -> Report:
    """Verifies the task of a manifest; `sha256` is what is known of its bytes from elsewhere.

    `told` is called after each file.
    """
    findings = list(check_document(data, sha256=sha256, actual_sha256=hashlib.sha256(data).hexdigest()))
    try:
        manifest = await asyncio.to_thread(read_manifest, data)
    except ManifestError as error:
        return Report(None, [*findings, Finding("the manifest", str(error))])
    findings += check_manifest(manifest)
    files = await _check_files(manifest, objects, told)
    findings += [Finding(each.file.object_key, text) for each in files for text in each.problems]
    holes = [(recording, hole) for recording in manifest.recordings for hole in holes_of(manifest, recording)]
    for recording, hole in holes:
        if hole.unexplained:
            seconds = (hole.end_ns - hole.start_ns) / 1e9
            text = f"nothing explains the {seconds:.3f} s after segment {hole.after}: {hole.unexplained}"
            findings.append(Finding(name_of(recording), text))
    findings += [
        Finding(key, "it is there, and not in the manifest") for key in await objects.unnamed(manifest)
    ]
    return Report(manifest, findings, files, holes)


async def _check_files(
    manifest: Manifest, objects: Objects, told: Callable[[CheckedFile], None]
) -> list[CheckedFile]:
    wanted = [
        (recording, segment_id, file)
        for recording in manifest.recordings
        for segment_id, file in _files(recording)
    ]
    slots = asyncio.Semaphore(_PARALLEL_FILES)

    async def check(recording: Recording, segment_id: int, file: File) -> CheckedFile:
        if file.state != STORED:
            checked = CheckedFile(recording, segment_id, file, was_checked=False)
        else:
            async with slots:
                problems = await _check_file(file, objects)
            checked = CheckedFile(recording, segment_id, file, was_checked=True, problems=problems)
        told(checked)
        return checked

    return list(await asyncio.gather(*(check(*each) for each in wanted)))


def _files(recording: Recording) -> list[tuple[int, File]]:
    files = [(segment.segment_id, file) for segment in recording.segments for file in segment.files]
    return files + [(file.first_segment_id or 0, file) for file in recording.joined_files]


async def _check_file(file: File, objects: Objects) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="roomtape-verify-") as scratch:
        try:
            path = await objects.fetch(file, Path(scratch))
        except NotThere as error:
            return (str(error),)
        return await asyncio.to_thread(_problems, file, path)


def _problems(file: File, path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
    except OSError as error:
        return (f"it can't be read: {error.strerror or error}",)
    problems = []
    if size != file.size_bytes:
        problems.append(f"it has {size} bytes, not {file.size_bytes}")
    if sha256 != file.sha256:
        problems.append(f"its SHA-256 is {sha256}, not {file.sha256}")
    try:
        problems += compare(file, measure(path, file.container))
    except MediaError as error:
        problems.append(str(error))
    return tuple(problems)
