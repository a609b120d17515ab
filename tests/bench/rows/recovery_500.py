"""What a node does before it serves again when it died with 500 recordings: every segment finished, hashed and stored.

Each segment is a minute of speech, in WAV, in MP3, in OGG, or in OGG and MP3, with a checkpoint three times a second.
"""

import asyncio
import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import av

from roomtape.v1 import segment_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.recordings import RecordingRow, insert_recording
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.ids import RandomIds
from roomtape_service.recording.protocol import (
    Container,
    FrameStatistics,
    RecordingKind,
    Resume,
    SegmentStarted,
    StartedFile,
    TrackCodec,
)
from roomtape_service.recording.segment import SegmentWriter
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.journal import JournalHeader, MediaFile, encode_record
from roomtape_service.spool.recovery import recordings_on_spool, recover
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.segments import SegmentFacts
from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.material import Clip
from tests.support.databases import APP, add_application, add_tasks

__all__ = ["measure"]

_NAME = "recovery_500"
_GOAL = 10.0
_SEGMENTS = 500
_SECONDS = 60
_RATE = 48_000
_FRAME = 960
_CHECKPOINT_FRAMES = 17
_EPOCH_NS = 1_700_000_000_000_000_000
_TASK = "1000"
_FORMS = (
    (Container.WAV,),
    (Container.MP3,),
    (Container.OGG,),
    (Container.OGG, Container.MP3),
)


class _Disk:
    """One place for everybody."""

    def place(self, record: ApplicationRecord) -> tuple[str, str]:
        return f"disk:{record.app_id}", ""


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    folder = bench.folder / _NAME
    shutil.rmtree(folder, ignore_errors=True)
    try:
        packets, pcm = _speech(bench.material.talking[0])
        models = [
            _write(folder / "models" / str(index), form, packets, pcm) for index, form in enumerate(_FORMS)
        ]
        generation = folder / "spool" / f"{_EPOCH_NS:020d}-0-1"
        generation.mkdir(parents=True)
        (generation / LOCK_NAME).touch()
        headers = [_copy(models[index % len(models)], generation, index) for index in range(_SEGMENTS)]
        seconds = asyncio.run(_recovered(folder, generation, headers))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(
            name=_NAME,
            ours=seconds,
            peer=None,
            peer_name=None,
            goal=_GOAL,
            unit="seconds",
            lower_is_better=True,
        )
    ]


async def _recovered(folder: Path, generation: Path, headers: Sequence[JournalHeader]) -> float:
    """Seconds from the first look at the spool to the last segment's row and events."""
    spool = folder / "spool"
    database = Database(f"sqlite:///{folder}/node.db", SystemClock())
    await database.open()
    try:
        await add_application(database, APP)
        await add_tasks(database, [_TASK])
        segments = SegmentFacts(_Disk(), RandomIds())

        async def begin(uow: UnitOfWork) -> None:
            for header in headers:
                kind = segment_pb2.RECORDING_KIND_SINGLE
                recording = RecordingRow(header.recording_id, _TASK, APP, kind, header.recording_id, 1, None)
                await insert_recording(uow.connection, recording)
                await segments.started(uow, _started(header, generation))

        await database.write(begin, name="begin")
        facts = Facts(database, segments, lambda: None, spool)
        started = time.perf_counter()
        records = await facts.known(recordings_on_spool(spool))
        recovery = await asyncio.to_thread(lambda: recover(spool, records=records))
        await facts.store_recovered(recovery)
        seconds = time.perf_counter() - started
        assert len(recovery.segments) == len(headers)
        assert not recovery.damages
        assert all(each.completed().sample_count > (_SECONDS - 2) * _RATE for each in recovery.segments)
    finally:
        await database.aclose()
    return seconds


def _speech(clip: Clip) -> tuple[list[bytes], bytes]:
    """A minute of Opus packets of 20 ms, and the same as PCM."""
    count = _SECONDS * _RATE // _FRAME
    packets = [payload for _, payload in clip.packets()]
    pcm = bytearray()
    with av.open(str(clip.path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                pcm += part.to_ndarray()[0].tobytes()
    size = count * _FRAME * 2
    return list(itertools.islice(itertools.cycle(packets), count)), (bytes(pcm) * 2)[:size]


def _header(recording_id: str, form: Sequence[Container]) -> JournalHeader:
    return JournalHeader(
        recording_id=recording_id,
        task_id=_TASK,
        kind=RecordingKind.SINGLE,
        segment=0,
        epoch_ns=_EPOCH_NS,
        start=0,
        sample_rate=_RATE,
        channels=1,
        bitrate=64_000,
        codec=TrackCodec.OPUS,
        files=tuple(MediaFile(each, f"{recording_id}-000000.{each.lower()}") for each in form),
    )


def _write(
    folder: Path, form: Sequence[Container], packets: Sequence[bytes], pcm: bytes
) -> tuple[Path, JournalHeader]:
    """A segment whose worker died."""
    folder.mkdir(parents=True)
    header = _header("model", form)
    writer = SegmentWriter(folder, header, waits_for_disk=False)
    for index, packet in enumerate(packets):
        part = pcm[index * _FRAME * 2 : (index + 1) * _FRAME * 2]
        writer.add_frame(part, _FRAME, packet, _FRAME)
        if index % _CHECKPOINT_FRAMES == 0 and (ready := writer.ready() // _FRAME):
            resume = {"user/session/mic": Resume(ready, _EPOCH_NS)}
            writer.checkpoint(ready * _FRAME, resume, FrameStatistics(recorded=ready))
    writer.release(interrupted=True).journal.close()
    return folder, header


def _copy(model: tuple[Path, JournalHeader], generation: Path, index: int) -> JournalHeader:
    folder, old = model
    new = _header(f"r{index}", [file.container for file in old.files])
    for before, after in zip(old.files, new.files, strict=True):
        shutil.copyfile(folder / before.name, generation / after.name)
    journal = (folder / "model-000000.journal").read_bytes()
    _, _, rest = journal.partition(b"\n")
    (generation / f"r{index}-000000.journal").write_bytes(encode_record(new) + rest)
    return new


def _started(header: JournalHeader, generation: Path) -> SegmentStarted:
    return SegmentStarted(
        recording_id=header.recording_id,
        segment=header.segment,
        start_ns=header.epoch_ns,
        files=tuple(StartedFile(file.container, str(generation / file.name)) for file in header.files),
        sample_rate=header.sample_rate,
        channels=header.channels,
    )
