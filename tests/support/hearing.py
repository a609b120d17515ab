"""What recorded files say: decoded by two decoders, and searched for tones."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av
import numpy as np

from roomtape.v1 import media_pb2, segment_pb2
from tests.support.audio import Samples, decode_file, ffmpeg_complaints, find_tone
from tests.support.stage import MS, SECOND, Speaker, Spoken

__all__ = [
    "Heard",
    "assert_heard",
    "check_files",
    "hear",
    "joined",
    "packets_of",
    "path_of",
    "samples_of",
    "select",
    "spoken_by",
]

UNIT_SAMPLES = 1024
WITHIN_NS = 40 * MS
WITHIN_DB = 1.0
_SHORTEST_NS = 30 * MS
"""What is shorter is the click of another tone's edge."""
_JOIN_NS = 15 * MS
_SILENT_DBFS = -48.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A tone in room time, and how loud: dBFS of its peak."""

    start_ns: int
    end_ns: int
    dbfs: float


def path_of(segment: segment_pb2.Segment) -> Path:
    """Where a file of a disk store lies."""
    assert segment.url.startswith("file://"), segment
    return Path(unquote(urlsplit(segment.url).path))


def select(
    segments: Iterable[segment_pb2.Segment],
    container: media_pb2.Container.ValueType,
    user_id: str = "",
) -> list[segment_pb2.Segment]:
    """The files of a user in one container, in order; of the mix without a user."""
    return [each for each in segments if each.user_id == user_id and each.container == container]


def samples_of(segment: segment_pb2.Segment) -> Samples:
    """What a file holds, by PyAV."""
    samples, rate = decode_file(path_of(segment))
    assert rate == segment.sample_rate_hz
    if segment.container == media_pb2.CONTAINER_AAC:
        # The file itself does not say what of it was not recorded: a unit before and what fills up the last.
        delay = segment.encoder_delay_samples
        assert len(samples) == delay + -(-segment.sample_count // UNIT_SAMPLES) * UNIT_SAMPLES
        return samples[delay : delay + segment.sample_count]
    return samples


def packets_of(segment: segment_pb2.Segment) -> list[bytes]:
    """The Opus packets of an Ogg file."""
    with av.open(str(path_of(segment))) as container:
        return [bytes(packet) for packet in container.demux() if packet.size]


def check_files(segments: Sequence[segment_pb2.Segment]) -> None:
    """Raises AssertionError unless every file is what its segment says, and ffmpeg has nothing to say about it."""
    assert segments
    for each in segments:
        data = path_of(each).read_bytes()
        assert each.state == segment_pb2.SEGMENT_STATE_UPLOADED
        assert not each.interrupted
        assert (each.size_bytes, each.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        samples = samples_of(each)
        assert len(samples) == each.sample_count, each
        assert samples.ndim == each.channels, each
        assert each.duration.ToNanoseconds() == each.sample_count * SECOND // each.sample_rate_hz
        span_ns = each.end_time.ToNanoseconds() - each.start_time.ToNanoseconds()
        # Packets of silence fill gaps in Ogg to within 2.5 ms.
        shortfall_ns = 2.5 * MS if each.container == media_pb2.CONTAINER_OGG else 0
        if each.container == media_pb2.CONTAINER_AAC and not each.encoder_delay_samples:
            # As it came, it is made of whole units.
            assert (
                abs(span_ns - each.duration.ToNanoseconds())
                <= UNIT_SAMPLES * SECOND / each.sample_rate_hz + 1
            )
            continue
        assert -SECOND / each.sample_rate_hz - 1 <= span_ns - each.duration.ToNanoseconds()
        assert span_ns - each.duration.ToNanoseconds() <= shortfall_ns + SECOND / each.sample_rate_hz + 1
    complaints = ffmpeg_complaints([path_of(each) for each in segments])
    assert complaints == "", complaints


def hear(segments: Sequence[segment_pb2.Segment], hertz: float, *, join_ns: int = _JOIN_NS) -> list[Heard]:
    """When a tone sounds in files that follow each other; gaps up to `join_ns` don't count."""
    heard: list[Heard] = []
    for segment in segments:
        start_ns = segment.start_time.ToNanoseconds()
        for span in find_tone(samples_of(segment), hertz, segment.sample_rate_hz, _SILENT_DBFS):
            begin, end = start_ns + round(span.start * SECOND), start_ns + round(span.end * SECOND)
            if heard and begin - heard[-1].end_ns <= join_ns:
                before = heard.pop()
                is_longer = before.end_ns - before.start_ns > end - begin
                heard.append(Heard(before.start_ns, end, before.dbfs if is_longer else span.dbfs))
            else:
                heard.append(Heard(begin, end, span.dbfs))
    return [each for each in heard if each.end_ns - each.start_ns >= _SHORTEST_NS]


def assert_heard(
    segments: Sequence[segment_pb2.Segment],
    expected: Mapping[float, tuple[Sequence[Spoken], float]],
    *,
    within_ns: int = WITHIN_NS,
    join_ns: int = _JOIN_NS,
) -> int:
    """Raises AssertionError unless the files hold each tone (by its frequency) just when it was spoken, and as loud.

    Returns the largest error of a start or an end, in nanoseconds.
    """
    worst = 0
    for hertz, (log, dbfs) in expected.items():
        heard = hear(segments, hertz, join_ns=join_ns)
        assert len(heard) == len(log), (hertz, heard, log)
        for each, spoken in zip(heard, log, strict=True):
            errors = (abs(each.start_ns - spoken.start_ns), abs(each.end_ns - spoken.end_ns))
            worst = max(worst, *errors)
            assert max(errors) <= within_ns, (hertz, each, spoken)
            assert abs(each.dbfs - dbfs) <= WITHIN_DB, (hertz, each, dbfs)
    return worst


def spoken_by(speakers: Iterable[Speaker]) -> dict[float, tuple[Sequence[Spoken], float]]:
    """What `assert_heard` should find of these."""
    return {speaker.hertz: (speaker.log, speaker.dbfs) for speaker in speakers}


def joined(segments: Sequence[segment_pb2.Segment]) -> Samples:
    """All samples of files that follow each other."""
    return np.concatenate([samples_of(each) for each in segments])
