"""What a publisher keeps, sends, sends again and lets go of; and where frames stand in time."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape.client.frames import opus_samples
from roomtape.client.outgoing import MAX_BATCH_BYTES, MAX_BATCH_FRAMES, OutgoingTrack
from roomtape.client.timing import PAUSE_NS, TrackTiming
from roomtape.v1 import ingest_pb2, media_pb2

SECOND_NS = 1_000_000_000
PCM = ingest_pb2.TrackOffer(
    track_id="audio", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=44_100, channels=2
)


def test_opus_durations_follow_the_table_of_contents() -> None:
    assert opus_samples(bytes([0 << 3])) == 480
    assert opus_samples(bytes([3 << 3])) == 2880
    assert opus_samples(bytes([13 << 3])) == 960
    assert opus_samples(bytes([16 << 3])) == 120
    assert opus_samples(bytes([31 << 3 | 1])) == 1920
    assert opus_samples(bytes([31 << 3 | 2, 9])) == 1920
    assert opus_samples(bytes([16 << 3 | 3, 0x80 | 48])) == 5760
    with pytest.raises(ValueError, match="code 3"):
        opus_samples(bytes([3, 0]))


def test_times_in_samples_do_not_drift() -> None:
    """1,024 samples at 44.1 kHz are no whole nanoseconds; four hours of them still end where it must."""
    timing = TrackTiming(44_100)
    timing.start(SECOND_NS)
    frames = 44_100 * 4 * 3_600 // 1_024
    for _ in range(frames):
        timing.place(1_024, None, None, None)
    exact_ns = frames * 1_024 * SECOND_NS / 44_100
    assert timing.media_end_ns == pytest.approx(exact_ns, abs=1, rel=0)
    assert timing.capture_end_ns - SECOND_NS == timing.media_end_ns


def test_live_frames_end_when_they_come_and_their_media_time_runs_on() -> None:
    timing = TrackTiming(48_000)
    assert timing.place(960, 10 * SECOND_NS, None, None) == (0, 9_980_000_000)
    assert timing.place(960, 10 * SECOND_NS + 23_000_000, None, None) == (20_000_000, 10_003_000_000)
    # Three that come at once were not captured before one another.
    burst = [timing.place(960, 10 * SECOND_NS + 24_000_000, None, None) for _ in range(3)]
    assert [media for media, _ in burst] == [40_000_000, 60_000_000, 80_000_000]
    assert [capture for _, capture in burst] == sorted(capture for _, capture in burst)


def test_a_pause_in_given_capture_times_is_one_of_the_media() -> None:
    timing = TrackTiming(48_000)
    timing.place(960, SECOND_NS, 0, None)
    assert timing.place(960, SECOND_NS, 21_000_000, None) == (20_000_000, 21_000_000)
    paused_ns = 41_000_000 + PAUSE_NS
    assert timing.place(960, SECOND_NS, paused_ns, None) == (40_000_000 + PAUSE_NS, paused_ns)
    assert timing.place(960, SECOND_NS, paused_ns + 20_000_000, 5 * SECOND_NS) == (
        5 * SECOND_NS,
        paused_ns + 20_000_000,
    )
    assert timing.place(960, None, None, None) == (5 * SECOND_NS + 20_000_000, paused_ns + 40_000_000)


def test_batches_stay_below_what_the_server_takes() -> None:
    track = OutgoingTrack(PCM)
    for _ in range(1_300):
        track.add(bytes(4), 0)
    sizes = []
    while (request := track.take()) is not None:
        sizes.append(len(request.frames.frames))
    assert sum(sizes) == 1_300
    assert max(sizes) == MAX_BATCH_FRAMES
    for _ in range(20):
        track.add(bytes(176_400), 0)
    while (request := track.take()) is not None:
        assert request.ByteSize() < MAX_BATCH_BYTES + 200_000


def test_a_mute_that_the_server_heard_too_early_is_taken_back() -> None:
    track = OutgoingTrack(PCM)
    track.add(bytes(4), 0)
    track.add(bytes(4), 0)
    track.mute(True)
    while track.take() is not None:
        pass
    # The frames after the first did not arrive in the stream before; what came after them did.
    track.rewind(resumed=True)
    track.acknowledge(1)
    sent = [message for _ in range(3) if (message := track.take()) is not None]
    assert [message.WhichOneof("message") for message in sent] == ["mute", "frames", "mute"]
    assert [frame.sequence for frame in sent[1].frames.frames] == [2]
    assert [sent[0].mute.muted, sent[2].mute.muted] == [False, True]


@given(st.lists(st.sampled_from(["add", "mute", "take", "ack", "break"]), max_size=60), st.randoms())
def test_nothing_is_lost_or_out_of_order(steps: list[str], random: Random) -> None:
    """Against a server that keeps what arrived before a break up to any point, and acknowledges any of it."""
    track = OutgoingTrack(PCM)
    kept: dict[int, bytes] = {}
    muted_before: dict[int, bool] = {}
    wanted_mutes: dict[int, bool] = {}
    server_muted = wanted_muted = False
    in_stream: list[int] = []
    for step in [*steps, "break", "take", "take", "take", "take", "take", "take", "ack"] + ["take"] * 60:
        match step:
            case "add":
                payload = track.newest_sequence.to_bytes(4, "big")
                sequence = track.add(payload, 0)
                assert sequence == track.newest_sequence
                wanted_mutes[sequence] = wanted_muted
            case "mute":
                wanted_muted = not wanted_muted
                track.mute(wanted_muted)
            case "take":
                request = track.take()
                if request is None:
                    continue
                if request.HasField("mute"):
                    server_muted = request.mute.muted
                for frame in request.frames.frames:
                    assert not in_stream or frame.sequence == in_stream[-1] + 1
                    in_stream.append(frame.sequence)
                    if frame.sequence not in kept:
                        kept[frame.sequence] = frame.payload
                        muted_before[frame.sequence] = server_muted
            case "ack":
                if kept:
                    track.acknowledge(random.choice(sorted(kept)))
            case "break":
                in_stream = []
                resumed = random.random() < 0.5
                unsafe = sorted(each for each in kept if each > track.acknowledged)
                survivors = random.randint(0, len(unsafe)) if resumed else 0
                for lost in unsafe[survivors:]:
                    del kept[lost]
                track.rewind(resumed)
                if resumed:
                    track.acknowledge(max(kept, default=0))
                else:
                    server_muted = False
        waiting = track.unacknowledged_frames
        assert waiting == track.newest_sequence - track.acknowledged
        assert 0 <= track.unsent_frames <= waiting
        assert track.unsent_bytes == 4 * track.unsent_frames
        assert track.unacknowledged_bytes == 4 * waiting
    assert kept == {number + 1: number.to_bytes(4, "big") for number in range(track.newest_sequence)}
    assert muted_before == wanted_mutes
    assert server_muted == wanted_muted
