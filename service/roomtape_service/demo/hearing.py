"""Each recorded file against what was spoken."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from roomtape.v1 import media_pb2, segment_pb2
from roomtape_service.cli.enums import label
from roomtape_service.demo.audio import RATE_HZ, clip_packets, decode_clip, decode_file, file_packets
from roomtape_service.demo.correlate import Match, MixFit, find, fit_mix
from roomtape_service.demo.finding import Finding
from roomtape_service.demo.performance import Spoken

__all__ = ["Heard", "hear", "path_of", "title"]

# What a listener would notice as out of time, and half of what lip-sync allows.
TOLERANCE_NS = 40_000_000
# A file must play as long as its entry says, to a fraction of any codec's frame.
EXACT_NS = 1_000_000
# Decoded, encoded to MP3 at 64 kbit/s and decoded again a clip reaches 0.99 with itself, and 0.1 with another voice's.
LEAST_OWN = 0.95
MOST_OTHER = 0.3
# MP3 encoders lower the volume a little; who was left out of a mix has 0.
LEAST_GAIN, MOST_GAIN = 0.8, 1.2
LEAST_EXPLAINED = 0.95


@dataclass(frozen=True, slots=True)
class Heard:
    """A file that was decoded and compared; `matches` by user in the order of the script."""

    segment: segment_pb2.Segment
    path: Path
    decoded_ns: int
    matches: Mapping[str, Match]
    fit: MixFit | None
    findings: Sequence[Finding]


def hear(segment: segment_pb2.Segment, spoken: Sequence[Spoken]) -> Heard:
    """Decodes the segment's file, looks for every clip in it, and says what holds. Raises OSError, av.FFmpegError."""
    path = path_of(segment)
    samples = decode_file(path)
    clips = [decode_clip(each.clip.path) for each in spoken]
    matches = {each.clip.user_id: find(samples, clip) for each, clip in zip(spoken, clips, strict=True)}
    decoded_ns = round(len(samples) * 1_000_000_000 / RATE_HZ)
    findings = [_stored(segment, path), _duration(segment, decoded_ns)]
    fit = None
    if segment.kind == segment_pb2.RECORDING_KIND_MIXED:
        fit = fit_mix(samples, clips, list(matches.values()))
        findings += _mixed(segment, spoken, matches, fit)
    else:
        findings += _single(segment, spoken, matches, path)
    return Heard(segment, path, decoded_ns, matches, fit, findings)


def title(segment: segment_pb2.Segment) -> str:
    """What a file is called here, such as `ada mp3`."""
    container = label(media_pb2.Container.DESCRIPTOR, segment.container)
    return f"{segment.user_id or 'the mix'} {container}"


def path_of(segment: segment_pb2.Segment) -> Path:
    """Where the file of a segment in a disk store is."""
    return Path(unquote(urlsplit(segment.url).path))


def _stored(segment: segment_pb2.Segment, path: Path) -> Finding:
    data = path.read_bytes()
    ok = len(data) == segment.size_bytes and hashlib.sha256(data).hexdigest() == segment.sha256
    return Finding(
        f"{title(segment)}: the stored file is the recorded one", ok, f"{len(data)} bytes, SHA-256"
    )


def _duration(segment: segment_pb2.Segment, decoded_ns: int) -> Finding:
    stated_ns = segment.duration.ToNanoseconds()
    ok = abs(decoded_ns - stated_ns) <= EXACT_NS
    return Finding(
        f"{title(segment)}: it plays as long as it says", ok, _milliseconds(decoded_ns - stated_ns)
    )


def _spoken_time(segment: segment_pb2.Segment, start_ns: int, end_ns: int) -> Finding:
    error_ns = segment.duration.ToNanoseconds() - (end_ns - start_ns)
    ok = abs(error_ns) <= TOLERANCE_NS
    return Finding(f"{title(segment)}: it is as long as what was spoken", ok, _milliseconds(error_ns))


def _single(
    segment: segment_pb2.Segment, spoken: Sequence[Spoken], matches: Mapping[str, Match], path: Path
) -> Iterator[Finding]:
    own = next((each for each in spoken if each.clip.user_id == segment.user_id), None)
    if own is None:
        yield Finding(f"{title(segment)}: the user spoke", False, "nobody with this id did")
        return
    yield _spoken_time(segment, own.start_ns, own.end_ns)
    match = matches[segment.user_id]
    yield Finding(
        f"{title(segment)}: it is this speaker's clip",
        match.coefficient >= LEAST_OWN,
        f"correlation {match.coefficient:.3f}, pauses moved by {match.displaced_seconds * 1000:.1f} ms",
    )
    yield _place(segment, own, match)
    others = {user: other.coefficient for user, other in matches.items() if user != segment.user_id}
    loudest = max(others, key=lambda user: others[user])
    yield Finding(
        f"{title(segment)}: nobody else is in it",
        others[loudest] <= MOST_OTHER,
        f"at most {others[loudest]:.3f} ({loudest})",
    )
    recorded = segment.statistics.recorded
    yield Finding(
        f"{title(segment)}: every frame is in it", recorded == own.frames, f"{recorded} of {own.frames}"
    )
    if segment.container == media_pb2.CONTAINER_OGG:
        packets, published = file_packets(path), clip_packets(own.clip.path)
        # The moment of leaving may be a little after the last packet; up to it the file has silence.
        added = len(packets) - len(published)
        untouched = packets[: len(published)] == published
        yield Finding(
            f"{title(segment)}: its packets are those that were published",
            untouched,
            f"{len(published)} byte for byte, then {added} of silence"
            if untouched
            else f"{len(packets)} differ",
        )


def _mixed(
    segment: segment_pb2.Segment, spoken: Sequence[Spoken], matches: Mapping[str, Match], fit: MixFit
) -> Iterator[Finding]:
    start_ns, end_ns = min(each.start_ns for each in spoken), max(each.end_ns for each in spoken)
    yield _spoken_time(segment, start_ns, end_ns)
    for each, gain in zip(spoken, fit.gains, strict=True):
        user_id = each.clip.user_id
        yield Finding(
            f"{title(segment)}: {user_id} is in it", LEAST_GAIN <= gain <= MOST_GAIN, f"at volume {gain:.2f}"
        )
        yield _place(segment, each, matches[user_id])
    yield Finding(
        f"{title(segment)}: nothing else is in it",
        fit.explained >= LEAST_EXPLAINED,
        f"{fit.explained:.1%} of its energy are these three",
    )


def _place(segment: segment_pb2.Segment, spoken: Spoken, match: Match) -> Finding:
    expected_ns = spoken.start_ns - segment.start_time.ToNanoseconds()
    error_ns = round(match.lag_seconds * 1_000_000_000) - expected_ns
    return Finding(
        f"{title(segment)}: {spoken.clip.user_id} begins when they did",
        abs(error_ns) <= TOLERANCE_NS,
        f"at {match.lag_seconds:.3f} s, off by {_milliseconds(error_ns)}",
    )


def _milliseconds(span_ns: int) -> str:
    return f"{span_ns / 1_000_000:+.1f} ms"
