"""The demo says that all is well only when it is: each recording here is broken in one way, and found out."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import lameenc
import numpy as np
import pytest

from roomtape.v1 import event_pb2, media_pb2, segment_pb2, task_pb2
from roomtape_service.demo.audio import RATE_HZ, Samples, clip_packets, decode_clip, decode_file
from roomtape_service.demo.clips import CLIPS
from roomtape_service.demo.judgement import judge
from roomtape_service.demo.performance import Performance, Spoken

START_NS = 1_800_000_000_000_000_000
OFFSETS_NS = (0, 5_000_000_000, 11_000_000_000)
MILLISECOND_NS = 1_000_000
ENCODER_DELAY_NS = 1105 * 1_000_000_000 // RATE_HZ

Break = Callable[[Performance], None]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Performance:
    """A recording without a fault."""
    folder = tmp_path_factory.mktemp("recorded")
    record = task_pb2.DescribeRecordInfoResponse(
        task=task_pb2.Task(state=task_pb2.TASK_STATE_COMPLETED, stop_reason=task_pb2.STOP_REASON_API)
    )
    spoken: list[Spoken] = []
    mix = np.zeros(20 * RATE_HZ, np.float32)
    for clip, offset_ns in zip(CLIPS, OFFSETS_NS, strict=True):
        samples = decode_clip(clip.path)
        start = offset_ns * RATE_HZ // 1_000_000_000
        mix[start : start + len(samples)] += samples
        start_ns = START_NS + offset_ns
        length_ns = len(samples) * 1_000_000_000 // RATE_HZ
        spoken.append(Spoken(clip, start_ns, start_ns + length_ns, len(clip_packets(clip.path))))
        mp3, ogg = folder / f"{clip.user_id}.mp3", folder / f"{clip.user_id}.ogg"
        # The encoder's delay and padding make it longer again.
        write_mp3(samples[:-960], mp3)
        ogg.write_bytes(clip.path.read_bytes())
        for path in (mp3, ogg):
            segment = record.segments.add(user_id=clip.user_id, kind=segment_pb2.RECORDING_KIND_SINGLE)
            segment.statistics.recorded = spoken[-1].frames
            describe(segment, path, start_ns)
    end = (spoken[-1].end_ns - START_NS) * RATE_HZ // 1_000_000_000
    write_mp3(mix[: end - 1920], folder / "mix.mp3")
    describe(record.segments.add(kind=segment_pb2.RECORDING_KIND_MIXED), folder / "mix.mp3", START_NS)
    return Performance(spoken, events(), record)


def write_mp3(samples: Samples, path: Path) -> None:
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(64)
    encoder.set_in_sample_rate(RATE_HZ)
    encoder.set_out_sample_rate(RATE_HZ)
    encoder.set_channels(1)
    encoder.silence()
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    path.write_bytes(bytes(encoder.encode(pcm)) + bytes(encoder.flush()))


def describe(segment: segment_pb2.Segment, path: Path, start_ns: int) -> None:
    """Fills in what the service says of a file."""
    data = path.read_bytes()
    mp3 = path.suffix == ".mp3"
    segment.container = media_pb2.CONTAINER_MP3 if mp3 else media_pb2.CONTAINER_OGG
    segment.state = segment_pb2.SEGMENT_STATE_UPLOADED
    segment.url = path.as_uri()
    segment.size_bytes = len(data)
    segment.sha256 = hashlib.sha256(data).hexdigest()
    duration_ns = round(len(decode_file(path)) * 1_000_000_000 / RATE_HZ)
    # These MP3 files have no tag, so they begin with their encoder's delay.
    start_ns -= ENCODER_DELAY_NS if mp3 else 0
    segment.duration.FromNanoseconds(duration_ns)
    segment.start_time.FromNanoseconds(start_ns)
    segment.end_time.FromNanoseconds(start_ns + duration_ns)


def events() -> list[event_pb2.Event]:
    found = [event_pb2.Event(type=event_pb2.EVENT_TYPE_TASK_STARTED, task_id="1", task_sequence=1)]
    for kind in (event_pb2.EVENT_TYPE_PARTICIPANT_JOINED, event_pb2.EVENT_TYPE_PARTICIPANT_LEFT):
        for clip in CLIPS:
            detail = event_pb2.ParticipantDetail(user_id=clip.user_id)
            found.append(event_pb2.Event(type=kind, participant=detail))
    found.append(event_pb2.Event(type=event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE, task_id="1", task_sequence=2))
    for sequence, event in enumerate(found, 1):
        event.sequence = sequence
    return found


def test_all_is_well(recorded: Performance) -> None:
    judgement = judge(recorded)
    assert [finding for finding in judgement.findings if not finding.ok] == []
    assert judgement.ok
    assert len(judgement.heard) == 7


def segment_of(performance: Performance, user_id: str, container: str = "MP3") -> segment_pb2.Segment:
    wanted = media_pb2.Container.Value(f"CONTAINER_{container}")
    return next(
        segment
        for segment in performance.record.segments
        if (segment.user_id, segment.container) == (user_id, wanted)
    )


def swap_files(performance: Performance) -> None:
    ada, ben = segment_of(performance, "ada"), segment_of(performance, "ben")
    for field in ("url", "sha256", "size_bytes"):
        mine, other = getattr(ada, field), getattr(ben, field)
        setattr(ada, field, other)
        setattr(ben, field, mine)
    duration = copy.deepcopy(ada.duration)
    ada.duration.CopyFrom(ben.duration)
    ben.duration.CopyFrom(duration)


def swap_clips(performance: Performance) -> None:
    spoken = performance.spoken
    assert isinstance(spoken, list)
    spoken[0], spoken[1] = replace(spoken[0], clip=spoken[1].clip), replace(spoken[1], clip=spoken[0].clip)


def swap_packets(performance: Performance) -> None:
    ada, ben = segment_of(performance, "ada", "OGG"), segment_of(performance, "ben", "OGG")
    ada.url = ben.url


def leave_out_of_the_mix(performance: Performance) -> None:
    mix = segment_of(performance, "")
    samples = decode_file(Path(mix.url.removeprefix("file://")))
    # Cleo speaks last and alone at the end.
    samples[14 * RATE_HZ :] = 0
    replace_file(mix, samples)


def mute(performance: Performance) -> None:
    replace_file(segment_of(performance, "ben"), np.zeros(8 * RATE_HZ + RATE_HZ // 2, np.float32))


def add_a_voice(performance: Performance) -> None:
    segment = segment_of(performance, "ada")
    samples = decode_file(Path(segment.url.removeprefix("file://")))
    other = decode_clip(CLIPS[2].path)[: len(samples)]
    samples[: len(other)] += other
    replace_file(segment, samples)


def replace_file(segment: segment_pb2.Segment, samples: Samples) -> None:
    path = Path(segment.url.removeprefix("file://"))
    other = path.with_name(f"replaced-{path.name}")
    write_mp3(samples, other)
    start_ns = segment.start_time.ToNanoseconds()
    describe(segment, other, start_ns + ENCODER_DELAY_NS)


def cut_a_file(performance: Performance) -> None:
    segment = segment_of(performance, "cleo")
    path = Path(segment.url.removeprefix("file://"))
    cut = path.with_name("cut.mp3")
    cut.write_bytes(path.read_bytes()[:-20_000])
    segment.url = cut.as_uri()


def lose_a_file(performance: Performance) -> None:
    segment_of(performance, "cleo").url = "file:///there/is/no/such/file.mp3"


def no_audio(performance: Performance) -> None:
    segment = segment_of(performance, "cleo")
    path = Path(segment.url.removeprefix("file://")).with_name("text.mp3")
    path.write_text("this is not audio " * 100)
    segment.url = path.as_uri()


def shift(user_id: str) -> Break:
    def shift_it(performance: Performance) -> None:
        start = segment_of(performance, user_id).start_time
        start.FromNanoseconds(start.ToNanoseconds() + 60 * MILLISECOND_NS)

    return shift_it


def misstate_duration(performance: Performance) -> None:
    duration = segment_of(performance, "ada").duration
    duration.FromNanoseconds(duration.ToNanoseconds() + 3 * MILLISECOND_NS)


def lose_a_frame(performance: Performance) -> None:
    segment_of(performance, "ben").statistics.recorded -= 1


def record_a_stranger(performance: Performance) -> None:
    performance.record.segments.add().CopyFrom(segment_of(performance, "ada"))
    performance.record.segments[-1].user_id = "dora"


def lose_an_event(performance: Performance) -> None:
    del list_of(performance)[2]


def warn(performance: Performance) -> None:
    list_of(performance)[1].type = event_pb2.EVENT_TYPE_GAP


def never_complete(performance: Performance) -> None:
    del list_of(performance)[-1]


def fail_the_task(performance: Performance) -> None:
    performance.record.task.state = task_pb2.TASK_STATE_FAILED


def leave_one_behind(performance: Performance) -> None:
    segment_of(performance, "ada").state = segment_pb2.SEGMENT_STATE_UPLOADING


def list_of(performance: Performance) -> list[event_pb2.Event]:
    assert isinstance(performance.events, list)
    return performance.events


def failed(performance: Performance) -> list[str]:
    judgement = judge(performance)
    found = [finding.what for finding in judgement.findings if not finding.ok]
    assert judgement.ok == (found == [])
    return found


@pytest.mark.parametrize(
    ("break_it", "user_id", "said"),
    [
        (swap_files, "ada", ["ada mp3: it is this speaker's clip"]),
        (swap_clips, "ada", ["ada mp3: ada begins when they did"]),
        (swap_clips, "", ["the mix mp3: ada begins when they did", "the mix mp3: ben begins when they did"]),
        (leave_out_of_the_mix, "", ["the mix mp3: cleo is in it"]),
        (mute, "ben", ["ben mp3: it is this speaker's clip"]),
        (add_a_voice, "ada", ["ada mp3: nobody else is in it"]),
        (
            cut_a_file,
            "cleo",
            ["cleo mp3: the stored file is the recorded one", "cleo mp3: it plays as long as it says"],
        ),
        (lose_a_file, "cleo", ["cleo mp3: it can be decoded"]),
        (no_audio, "cleo", ["cleo mp3: it can be decoded"]),
        (shift("cleo"), "cleo", ["cleo mp3: cleo begins when they did"]),
        (shift(""), "", ["the mix mp3: ben begins when they did"]),
        (misstate_duration, "ada", ["ada mp3: it plays as long as it says"]),
        (lose_a_frame, "ben", ["ben mp3: every frame is in it"]),
    ],
)
def test_a_fault_of_a_file_is_said(
    break_it: Break, user_id: str, said: list[str], recorded: Performance
) -> None:
    broken = copy.deepcopy(recorded)
    break_it(broken)
    # The others are as they were, and take their time to be heard.
    segment = segment_of(broken, user_id)
    del broken.record.segments[:]
    broken.record.segments.add().CopyFrom(segment)
    assert set(said) <= set(failed(broken))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lose_an_event, "the events: their numbers have no hole"),
        (lose_an_event, "the events: each speaker came and went once"),
        (warn, "the events: no gap, no interruption, no warning"),
        (never_complete, "the events: the last says that all files are stored"),
        (fail_the_task, "the task: it was stopped by its caller and is complete"),
    ],
)
def test_a_fault_beside_the_files_is_said(break_it: Break, said: str, recorded: Performance) -> None:
    broken = copy.deepcopy(recorded)
    del broken.record.segments[:]
    assert said not in failed(broken)
    break_it(broken)
    assert said in failed(broken)


def test_packets_of_another_are_found(recorded: Performance) -> None:
    broken = copy.deepcopy(recorded)
    swap_packets(broken)
    segment = segment_of(broken, "ada", "OGG")
    del broken.record.segments[:]
    broken.record.segments.add().CopyFrom(segment)
    assert "ada ogg: its packets are those that were published" in failed(broken)


@pytest.mark.parametrize("break_it", [record_a_stranger, leave_one_behind])
def test_a_wrong_set_of_files_is_said(break_it: Break, recorded: Performance) -> None:
    broken = copy.deepcopy(recorded)
    break_it(broken)
    for segment in broken.record.segments:
        segment.url = "file:///not/to/be/heard"
    assert "the files: one a speaker and format, one mix, all stored" in failed(broken)


def test_nothing_recorded_is_not_well(recorded: Performance) -> None:
    judgement = judge(replace(recorded, record=task_pb2.DescribeRecordInfoResponse()))
    assert not judgement.ok
    assert judgement.heard == []


def test_clips_are_small_and_opus() -> None:
    for clip in CLIPS:
        assert clip.path.stat().st_size < 60_000
        with av.open(str(clip.path), "r") as container:
            assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
            seconds = len(decode_clip(clip.path)) / RATE_HZ
        assert 6 <= seconds <= 9
        assert clip.path.stat().st_size * 8 / seconds <= 32_000
