"""Whether all is there, once and in order, by what the publishers and the watcher wrote down themselves."""

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from roomtape.v1 import event_pb2, media_pb2, segment_pb2
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.identity import MARK_NAME
from tests.faults.cast import SCENES, Behaviour, Role, Scene, role_name
from tests.faults.diary import PublishedFrame, read_acknowledged, read_frames
from tests.faults.manifests import judge_manifests
from tests.faults.run import Outcome
from tests.faults.sound import Found, find_exactly, find_like
from tests.faults.stores import FaultyStore
from tests.faults.watcher import read_events
from tests.support.audio import Samples, decode_file, ffmpeg_complaints, opus_decode
from tests.support.hearing import select

__all__ = ["Figures", "judge"]

_FRAME_SAMPLES = 960
_LOST_FRAMES_PER_KILL = 50
"""A second."""
_MANIFEST = "manifest.json"
_ONCE = (
    event_pb2.EVENT_TYPE_SEGMENT_STARTED,
    event_pb2.EVENT_TYPE_SEGMENT_COMPLETED,
    event_pb2.EVENT_TYPE_SEGMENT_UPLOADED,
)

_Segments = Sequence[segment_pb2.Segment]


@dataclass(slots=True)
class Figures:
    """What a run came to."""

    segments: int = 0
    interrupted: int = 0
    published_frames: int = 0
    resent_frames: int = 0
    missing_frames: int = 0
    """Of publishers that send again: none."""
    forgotten_frames: int = 0
    """Of the one that does not: less than a second for each kill."""
    events: int = 0
    stored_bytes: int = 0


class _Library:
    """The files, out of the store, each checked against what the service says of it."""

    def __init__(self, store: FaultyStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._paths: dict[str, Path] = {}

    def take(self, segment: segment_pb2.Segment) -> None:
        data = self._store.read(segment.object_key)
        assert len(data) == segment.size_bytes, (segment.object_key, len(data), segment.size_bytes)
        assert hashlib.sha256(data).hexdigest() == segment.sha256, segment.object_key
        path = self._folder / f"{len(self._paths)}.{Path(segment.object_key).suffix.removeprefix('.')}"
        path.write_bytes(data)
        self._paths[segment.file_id] = path

    def path(self, segment: segment_pb2.Segment) -> Path:
        return self._paths[segment.file_id]

    def samples(self, segments: _Segments) -> Samples:
        """What they hold, one after the other."""
        parts = []
        for each in segments:
            samples, rate = decode_file(self.path(each))
            assert (len(samples), rate) == (each.sample_count, each.sample_rate_hz), each
            parts.append(samples)
        return np.concatenate(parts)

    def packets(self, segments: _Segments) -> list[bytes]:
        found = []
        for each in segments:
            with av.open(str(self.path(each))) as container:
                found += [bytes(packet) for packet in container.demux() if packet.size]
        return found

    def complaints(self) -> str:
        """What ffmpeg has to say about any of them."""
        paths = list(self._paths.values())
        return "".join(ffmpeg_complaints(paths[at : at + 50]) for at in range(0, len(paths), 50))


def judge(outcome: Outcome, store: FaultyStore, data_dir: Path) -> Figures:
    """Raises AssertionError for anything that is lost, damaged, there twice, out of order or left over. Blocks."""
    figures = Figures()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        library = _Library(store, Path(folder))
        for segments in outcome.segments.values():
            for each in segments:
                assert each.state == segment_pb2.SEGMENT_STATE_UPLOADED, each
                library.take(each)
                figures.segments += 1
                figures.interrupted += each.interrupted
        assert (complaints := library.complaints()) == "", complaints
        for scene in SCENES:
            for role in scene.roles:
                try:
                    _judge_role(outcome, library, scene, role, figures)
                except AssertionError as error:
                    problems.append(f"{role_name(scene, role)}: {error}")
    problems += _judge_order(outcome, figures)
    problems += _judge_store(outcome, store, figures)
    problems += judge_manifests(store, outcome.tasks.values())
    problems += _judge_spool(data_dir)
    assert not problems, "\n".join(problems)
    return figures


def _judge_role(outcome: Outcome, library: _Library, scene: Scene, role: Role, figures: Figures) -> None:
    frames = read_frames(outcome.folder, role_name(scene, role))
    figures.published_frames += len(frames)
    segments = outcome.segments[scene.room_id]
    if role.behaviour is Behaviour.FORGET:
        _judge_forgetful(outcome, library, scene, role, frames, figures)
        return
    statistics = json.loads((outcome.folder / f"{role_name(scene, role)}.statistics").read_text())
    figures.resent_frames += sum(each["resent_frames"] for each in statistics)
    session, sequence, _ = read_acknowledged(outcome.folder, role_name(scene, role))
    assert (session, sequence) == (frames[-1].session, frames[-1].sequence), "not all was acknowledged"
    if role in scene.recorded:
        for container in scene.singles:
            mine = select(segments, container, role.user_id)
            assert mine, f"there is no file in {media_pb2.Container.Name(container)}"
            _in_order(mine)
            _judge_single(library, role, frames, mine, container)
    elif scene.singles:
        assert not select(segments, scene.singles[0], role.user_id), "was not to be recorded"
    for container in scene.mixes:
        mixed = select(segments, container)
        _in_order(mixed)
        expected = _stretches(role, frames)
        find_like(library.samples(mixed), expected, mixed[0].sample_rate_hz)


def _judge_single(
    library: _Library,
    role: Role,
    frames: Sequence[PublishedFrame],
    segments: _Segments,
    container: media_pb2.Container.ValueType,
) -> None:
    if container == media_pb2.CONTAINER_OGG:
        published = [frame.payload for frame in frames]
        known = set(published)
        # Other packets are the silence between.
        found = [packet for packet in library.packets(segments) if packet in known]
        assert found == published, _difference(found, published)
        return
    samples = library.samples(segments)
    if container == media_pb2.CONTAINER_WAV and not role.is_opus:
        _only_silence_beside(samples, find_exactly(samples, _stretches(role, frames)))
    else:
        find_like(samples, _stretches(role, frames), segments[0].sample_rate_hz)


def _judge_forgetful(
    outcome: Outcome,
    library: _Library,
    scene: Scene,
    role: Role,
    frames: Sequence[PublishedFrame],
    figures: Figures,
) -> None:
    segments = select(outcome.segments[scene.room_id], scene.singles[0], role.user_id)
    _in_order(segments)
    samples = library.samples(segments)
    present = _frames_in(samples, frames)
    missing = len(frames) - present
    kills = outcome.kills.total()
    figures.forgotten_frames = missing
    assert missing < _LOST_FRAMES_PER_KILL * kills, f"{missing} frames are missing after {kills} kills"


def _frames_in(samples: Samples, frames: Sequence[PublishedFrame]) -> int:
    data, at, count = samples.astype("<i2").tobytes(), 0, 0
    for frame in frames:
        place = data.find(frame.payload, at)
        if place >= 0:
            at = place + len(frame.payload)
            count += 1
    return count


def _stretches(role: Role, frames: Sequence[PublishedFrame]) -> list[Samples]:
    """What was said without a pause."""
    stretches: list[list[PublishedFrame]] = []
    for frame in frames:
        last = stretches[-1][-1] if stretches else None
        step_ns = frame.capture_ns - last.capture_ns if last is not None else 0
        if last is not None and last.session == frame.session and step_ns == 20_000_000:
            stretches[-1].append(frame)
        else:
            stretches.append([frame])
    if not role.is_opus:
        return [_pcm(stretch, role.channels) for stretch in stretches]
    # One decoder for all, as a decoder hears a pause too.
    decoded = opus_decode(frame.payload for frame in frames)
    ends = np.cumsum([len(stretch) for stretch in stretches]) * _FRAME_SAMPLES
    return np.split(decoded[: int(ends[-1])], ends[:-1])


def _pcm(frames: Sequence[PublishedFrame], channels: int) -> Samples:
    samples = np.frombuffer(b"".join(frame.payload for frame in frames), "<i2")
    return samples if channels == 1 else samples.reshape(-1, channels)


def _only_silence_beside(samples: Samples, found: Sequence[Found]) -> None:
    at = 0
    for each in (*found, Found(len(samples), len(samples))):
        assert not samples[at : each.start].any(), f"samples {at} to {each.start} are nobody's"
        at = each.end


def _in_order(segments: _Segments) -> None:
    numbers = [segment.segment_id for segment in segments]
    assert numbers == sorted(set(numbers)), f"segments {numbers}"
    for before, after in pairwise(segments):
        assert before.end_time.ToNanoseconds() <= after.start_time.ToNanoseconds() + 1_000_000, (
            f"segment {after.segment_id} begins before {before.segment_id} ends"
        )


def _difference(found: Sequence[bytes], published: Sequence[bytes]) -> str:
    first = next(
        (at for at, (one, other) in enumerate(zip(found, published, strict=False)) if one != other),
        min(len(found), len(published)),
    )
    return (
        f"{len(found)} packets recorded, {len(published)} published; packet {first} is the first that differs"
    )


def _judge_order(outcome: Outcome, figures: Figures) -> list[str]:
    """Every event came once, in order; of every file its steps are told once."""
    events = read_events(outcome.folder / "events")
    figures.events = len(events)
    problems = []
    sequences = [event.sequence for event in events]
    if sequences != list(range(1, len(sequences) + 1)):
        problems.append("the events' sequences are not dense")
    by_task: Mapping[str, list[int]] = defaultdict(list)
    steps: Counter[tuple[str, int]] = Counter()
    for event in events:
        if event.task_id != "-":
            by_task[event.task_id].append(event.task_sequence)
        if event.file_id != "-":
            steps[event.file_id, event.type] += 1
    for task_id, numbers in by_task.items():
        if numbers != list(range(1, len(numbers) + 1)):
            problems.append(f"task {task_id}: its events are {numbers}")
    problems += [
        f"{event_pb2.EventType.Name(kind)} came {steps[each.file_id, kind]} times for {each.object_key}"
        for segments in outcome.segments.values()
        for each in segments
        for kind in _ONCE
        if steps[each.file_id, kind] != 1
    ]
    for task_id in outcome.tasks.values():
        done = [
            event
            for event in events
            if event.task_id == task_id and event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE
        ]
        if len(done) != 1:
            problems.append(f"TASK_FILES_COMPLETE came {len(done)} times for task {task_id}")
    return problems


def _judge_store(outcome: Outcome, store: FaultyStore, figures: Figures) -> list[str]:
    problems = []
    objects = store.objects()
    figures.stored_bytes = sum(objects.values())
    keys = [each.object_key for segments in outcome.segments.values() for each in segments]
    if len(keys) != len(set(keys)):
        problems.append("two segments have one key")
    unknown = [key for key in objects.keys() - set(keys) if not key.endswith(_MANIFEST)]
    if unknown:
        problems.append(f"objects that are no segment's: {sorted(unknown)[:5]} ({len(unknown)})")
    if unfinished := store.unfinished():
        problems.append(f"uploads that nobody completed: {unfinished[:5]} ({len(unfinished)})")
    return problems


def _judge_spool(data_dir: Path) -> list[str]:
    spool = data_dir / "spool"
    left = [
        str(path.relative_to(spool))
        for path in spool.rglob("*")
        if path.is_file() and path.name not in (LOCK_NAME, MARK_NAME)
    ]
    return [f"left on the spool: {sorted(left)[:5]} ({len(left)})"] if left else []
