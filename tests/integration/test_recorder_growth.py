"""What a worker tells of files that grow: bytes of which it says that they are final are those of the finished file."""

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.containers.aac_files import finish_aac, finish_m4a, m4a_format
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.mp3 import Mp3Writer, finish_mp3, frame_format
from roomtape_service.recording.protocol import Container, TrackCodec
from roomtape_service.storage.part import PART_BYTES, SETTLED_BYTES, settled_parts
from tests.support.audio import noise
from tests.support.recorder import Publisher, RecorderNode, order
from tests.support.single import begin, end, path_of, pcm_frames, send

FRAME = 960
TRACK = 7
# One frame of CELT at full band in stereo, as long as one can be.
LONGEST_PACKET_BYTES = 1275
PACKET_HEAD = bytes((31 << 3 | 4,))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RecorderNode]:
    async with RecorderNode(tmp_path) as recorder:
        yield recorder


class _Witness:
    """Takes a hash of what is final whenever the worker says so."""

    def __init__(self, node: RecorderNode) -> None:
        self.seen: list[tuple[Path, int, str]] = []
        self._paths: dict[str, Path] = {}
        node.on_said = self._hear

    def _hear(self, op: protocol.WorkerOp) -> None:
        if isinstance(op, protocol.SegmentStarted):
            self._paths = {str(file.container): Path(file.path) for file in op.files}
        elif isinstance(op, protocol.SegmentGrown):
            for container, size in op.sizes.items():
                end = settled_parts(size, PART_BYTES) * PART_BYTES
                self.seen.append((self._paths[container], end, _hash(self._paths[container], end)))

    def check(self) -> list[int]:
        """Compares with the finished files; returns up to where they were final, in order."""
        for path, end_bytes, digest in self.seen:
            assert _hash(path, end_bytes) == digest
        return [end_bytes for _, end_bytes, _ in self.seen]


def _hash(path: Path, end: int, start: int = PART_BYTES) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(max(0, end - start))).hexdigest()


async def test_wav_that_grows_is_final_part_by_part(node: RecorderNode) -> None:
    witness = _Witness(node)
    publisher = Publisher(TRACK, channels=2)
    begin(node, publisher, order("r", Container.WAV))
    second = noise(1.0, channels=2)
    for _ in range(140):
        send(node, publisher, pcm_frames(publisher, second), size=25)
    [segment] = await end(node, publisher)
    # Checkpoints may be more than a part apart when media come faster than they play.
    ends = witness.check()
    assert ends == sorted(set(ends))
    assert ends[-1] == _settled_bytes(segment, Container.WAV) == 3 * PART_BYTES


async def test_ogg_that_grows_is_final_part_by_part(node: RecorderNode) -> None:
    witness = _Witness(node)
    publisher = Publisher(TRACK, TrackCodec.OPUS, channels=2)
    begin(node, publisher, order("r", Container.OGG))
    randomness = random.Random(1)
    packets = [PACKET_HEAD + randomness.randbytes(LONGEST_PACKET_BYTES - 1) for _ in range(50)]
    for _ in range(400):
        send(node, publisher, [publisher.frame(packet, FRAME) for packet in packets], size=25)
    [segment] = await end(node, publisher)
    assert segment.statistics.rejected == 0
    assert witness.check()[-1] == _settled_bytes(segment, Container.OGG) == 3 * PART_BYTES


def _settled_bytes(segment: protocol.SegmentCompleted, container: Container) -> int:
    size_bytes = Path(path_of(segment, container)).stat().st_size
    return settled_parts(size_bytes, PART_BYTES) * PART_BYTES


def test_mp3_that_grows_is_final_but_for_its_tag(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    rate, bitrate = 44_100, 320_000
    writer = Mp3Writer(str(path), rate, 2, bitrate)
    seen: list[tuple[int, str]] = []
    head_bytes = 4096
    second = noise(1.0, rate, channels=2).tobytes()
    for number in range(12):
        if number % 4 == 3:
            writer.add_silence(rate * 3)
        else:
            writer.add_pcm(second)
        size = writer.cut(writer.ready)
        if size > SETTLED_BYTES:
            seen.append((size - SETTLED_BYTES, _hash(path, size - SETTLED_BYTES, head_bytes)))
    writer.end()
    samples = writer.ready
    size = writer.cut(samples)
    writer.file.close()
    finish_mp3(str(path), size, samples, frame_format(rate, 2, bitrate))
    assert len(seen) > 5
    assert all(_hash(path, end_bytes, head_bytes) == digest for end_bytes, digest in seen)


@pytest.mark.parametrize("container", [Container.AAC, Container.M4A])
def test_aac_that_grows_is_final_but_for_its_head(tmp_path: Path, container: Container) -> None:
    path = tmp_path / "a"
    rate, bitrate = 44_100, 320_000
    writer = AacWriter(container, str(path), rate, 2, bitrate)
    seen: list[tuple[int, str]] = []
    head_bytes = 64
    second = noise(1.0, rate, channels=2).tobytes()
    for number in range(8):
        if number % 4 == 3:
            writer.add_silence(rate * 3)
        else:
            writer.add_pcm(second)
        size = writer.cut(writer.ready)
        seen.append((size, _hash(path, size, head_bytes)))
    writer.end()
    samples = writer.ready
    size = writer.cut(samples)
    writer.file.close()
    if container is Container.M4A:
        finish_m4a(str(path), size, samples, m4a_format(rate, 2, passes=False))
    else:
        finish_aac(str(path), size, samples, passes=False)
    assert size > SETTLED_BYTES
    assert all(_hash(path, end_bytes, head_bytes) == digest for end_bytes, digest in seen)
