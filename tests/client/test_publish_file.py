"""Media files become frames: untouched where they are Opus, heard alike where not, and paced without drift."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import pytest

from roomtape.client import Client, NotFound, PublisherSettings, PublishProgress
from roomtape.client.file_publishing import publish_media
from roomtape.client.media_file import MediaFile, MediaFrame
from roomtape.v1 import error_pb2, ingest_pb2, media_pb2, room_pb2
from roomtape_service.errors import Refusal
from tests.client.media import heard, packets, pitch, tone, write
from tests.client.scripted import Faults, Scripted

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
PRE_SKIP_NS = 312 * SECOND_NS // 48_000
"""Of libopus."""
FAST = PublisherSettings(batch_seconds=0.005)


@dataclass
class FakeClock:
    """Time that passes only while somebody sleeps, and then somewhat more than they asked for."""

    random: Random = field(default_factory=lambda: Random(7))
    latest_seconds: float = 0.015
    monotonic: int = 5 * SECOND_NS

    def now_ns(self) -> int:
        return START_NS + self.monotonic

    def monotonic_ns(self) -> int:
        return self.monotonic

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.monotonic += round((seconds + self.random.uniform(0, self.latest_seconds)) * SECOND_NS)


@pytest.fixture
def media_room(server: Scripted) -> Scripted:
    server.ingest.clock = room_pb2.ROOM_CLOCK_MEDIA
    return server


def received(server: Scripted) -> tuple[ingest_pb2.TrackOffer, list[ingest_pb2.Frame]]:
    life = server.ingest.lives[-1]
    kept = server.ingest.kept[life.open.publish_session_id, life.open.tracks[0].track_id]
    assert sorted(kept) == list(range(1, len(kept) + 1))
    return life.open.tracks[0], [kept[sequence] for sequence in sorted(kept)]


async def publish(client: Client, path: Path, **options: object) -> None:
    await client.publish_file(
        path,
        "app",
        "room",
        "user",
        realtime=False,
        start_time_ns=START_NS,
        settings=FAST,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", ["clip.ogg", "clip.webm", "clip.mp4", "clip.mkv", "clip.opus"])
async def test_opus_goes_untouched(media_room: Scripted, client: Client, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "libopus", tone(440, 1.5))
    await publish(client, path)
    offer, frames = received(media_room)
    assert (offer.codec, offer.channels, offer.sample_rate_hz) == (media_pb2.CODEC_OPUS, 1, 48_000)
    assert [frame.payload for frame in frames] == packets(path)
    times = [frame.media_time.ToNanoseconds() for frame in frames]
    assert times == [number * 20_000_000 for number in range(len(frames))]
    captures = [frame.capture_time.ToNanoseconds() - START_NS for frame in frames]
    assert captures == [time - PRE_SKIP_NS for time in times]
    close = media_room.ingest.lives[-1].messages[-1].close
    assert close.sent_time.ToNanoseconds() - START_NS == pytest.approx(1.5 * SECOND_NS, abs=1_000_000)


@pytest.mark.parametrize("opus_bitrate_bps", [None, 48_000])
@pytest.mark.parametrize("name", ["clip.ogg", "clip.webm", "clip.mp4", "clip.wav"])
async def test_what_is_heard_has_its_time(
    media_room: Scripted, client: Client, tmp_path: Path, name: str, opus_bitrate_bps: int | None
) -> None:
    """A click in the file is captured when it is heard there, whatever the codec puts before the sound."""
    clicks = np.zeros((48_000, 1), np.int16)
    clicks[24_000] = 30_000
    path = write(tmp_path / name, "pcm_s16le" if name == "clip.wav" else "libopus", clicks)
    await publish(client, path, opus_bitrate_bps=opus_bitrate_bps)
    offer, frames = received(media_room)
    samples = heard(offer, [frame.payload for frame in frames])
    first_ns = frames[0].capture_time.ToNanoseconds() - START_NS
    click_ns = first_ns + int(np.argmax(np.abs(samples[:, 0].astype(int)))) * SECOND_NS // 48_000
    assert click_ns == pytest.approx(SECOND_NS // 2, abs=500_000)
    assert media_room.ingest.lives[-1].messages[-1].close.sent_time.ToNanoseconds() == pytest.approx(
        START_NS + SECOND_NS, abs=1_000_000
    )


@pytest.mark.parametrize(("name", "skipped"), [("clip.m4a", 1024), ("clip.mkv", 1024), ("clip.aac", 0)])
async def test_aac_goes_untouched(
    media_room: Scripted, client: Client, tmp_path: Path, name: str, skipped: int
) -> None:
    path = write(tmp_path / name, "aac", tone(440, 1.5, 44_100, 2), 44_100)
    await publish(client, path)
    offer, frames = received(media_room)
    assert (offer.codec, offer.channels, offer.sample_rate_hz) == (media_pb2.CODEC_AAC, 2, 44_100)
    assert [frame.payload for frame in frames] == packets(path)
    times = [frame.media_time.ToNanoseconds() for frame in frames]
    assert times == [number * 1024 * SECOND_NS // 44_100 for number in range(len(frames))]
    # Only a stream of ADTS does not say what the encoder put before the sound.
    first_ns = frames[0].capture_time.ToNanoseconds() - START_NS
    assert first_ns == pytest.approx(-skipped * SECOND_NS / 44_100, abs=1_000_000)
    assert media_room.ingest.lives[-1].messages[-1].close.sent_time.ToNanoseconds() == pytest.approx(
        START_NS + 3 * SECOND_NS // 2, abs=50_000_000
    )


async def test_what_is_heard_of_aac_has_its_time(
    media_room: Scripted, client: Client, tmp_path: Path
) -> None:
    clicks = np.zeros((48_000, 1), np.int16)
    clicks[24_000:24_010] = 30_000
    path = write(tmp_path / "clip.m4a", "aac", clicks)
    with_header = write(tmp_path / "clip.aac", "aac", clicks)
    await publish(client, path)
    offer, frames = received(media_room)
    # The same units, with headers from which a decoder knows what they are.
    assert len(packets(with_header)) == len(frames)
    samples = heard(offer, packets(with_header))
    first_ns = frames[0].capture_time.ToNanoseconds() - START_NS
    click_ns = first_ns + int(np.argmax(np.abs(samples[:, 0].astype(int)))) * SECOND_NS // 48_000
    assert click_ns == pytest.approx(SECOND_NS // 2, abs=500_000)
    close_ns = media_room.ingest.lives[-1].messages[-1].close.sent_time.ToNanoseconds()
    assert close_ns == pytest.approx(START_NS + SECOND_NS, abs=1_000_000)


@pytest.mark.parametrize(
    ("codec", "wanted", "channels"),
    [("pcm_mulaw", media_pb2.CODEC_PCMU, 1), ("pcm_alaw", media_pb2.CODEC_PCMA, 2)],
)
async def test_g711_goes_untouched(
    media_room: Scripted,
    client: Client,
    tmp_path: Path,
    codec: str,
    wanted: media_pb2.Codec.ValueType,
    channels: int,
) -> None:
    path = write(tmp_path / "clip.wav", codec, tone(440, 1.51, 8_000, channels), 8_000)
    await publish(client, path)
    offer, frames = received(media_room)
    assert (offer.codec, offer.channels, offer.sample_rate_hz) == (wanted, channels, 8_000)
    assert b"".join(frame.payload for frame in frames) == b"".join(packets(path))
    times = [frame.media_time.ToNanoseconds() for frame in frames]
    assert times == [number * 20_000_000 for number in range(76)]
    samples = heard(offer, [frame.payload for frame in frames])
    assert pitch(samples[:, 0], 8_000) == pytest.approx(440, abs=2)


async def test_aac_and_g711_become_opus_where_that_is_asked_for(
    media_room: Scripted, client: Client, tmp_path: Path
) -> None:
    for name, codec, rate_hz in (("clip.m4a", "aac", 44_100), ("clip.wav", "pcm_mulaw", 8_000)):
        path = write(tmp_path / name, codec, tone(440, 0.5, rate_hz), rate_hz)
        await publish(client, path, opus_bitrate_bps=32_000)
        assert received(media_room)[0].codec == media_pb2.CODEC_OPUS


DECODED = {
    "clip.mp3": ("libmp3lame", 44_100, 2, 2),
    "clip.wav": ("pcm_s16le", 44_100, 1, 1),
    "clip.flac": ("flac", 32_000, 2, 2),
    "clip.m4a": ("aac", 48_000, 6, 2),
    "clip.ts": ("libopus", 48_000, 1, 1),
}


@pytest.mark.parametrize("opus_bitrate_bps", [None, 48_000])
@pytest.mark.parametrize("name", DECODED)
async def test_all_else_is_heard_alike(
    media_room: Scripted, client: Client, tmp_path: Path, name: str, opus_bitrate_bps: int | None
) -> None:
    codec, rate_hz, channels, published = DECODED[name]
    path = write(tmp_path / name, codec, tone(400, 1.5, rate_hz, channels), rate_hz)
    await publish(client, path, opus_bitrate_bps=opus_bitrate_bps)
    offer, frames = received(media_room)
    wanted = media_pb2.CODEC_PCM_S16LE if opus_bitrate_bps is None else media_pb2.CODEC_OPUS
    assert (offer.codec, offer.channels, offer.sample_rate_hz) == (wanted, published, 48_000)
    samples = heard(offer, [frame.payload for frame in frames])
    assert len(samples) / 48_000 == pytest.approx(1.5, abs=0.1)
    middle = samples[12_000:60_000]
    assert pitch(middle[:, 0]) == pytest.approx(400, abs=2)
    if channels == 2:
        assert pitch(middle[:, 1]) == pytest.approx(800, abs=2)
    if channels < 6:
        assert np.sqrt(np.mean(middle[:, 0].astype(float) ** 2)) == pytest.approx(
            16_384 / np.sqrt(2), rel=0.1
        )
    end_ns = 0
    for frame in frames:
        assert frame.media_time.ToNanoseconds() == end_ns
        end_ns += 20_000_000


def test_pcm_is_sample_for_sample(tmp_path: Path) -> None:
    samples = tone(300, 1.01, channels=2)
    source = MediaFile(write(tmp_path / "clip.wav", "pcm_s16le", samples))
    frames = []
    while read := source.read(SECOND_NS // 4):
        assert sum(frame.duration_ns for frame in read) <= SECOND_NS // 4 + 10_000_000
        frames += read
    source.close()
    assert b"".join(frame.payload for frame in frames) == samples.tobytes()
    assert source.offer("a").channels == 2
    assert sum(frame.duration_ns for frame in frames) == pytest.approx(1.01 * SECOND_NS, abs=1_000)


@pytest.mark.parametrize("units", [1, 2])
def test_the_shortest_adts_files_are_read(tmp_path: Path, units: int) -> None:
    whole = write(tmp_path / "whole.aac", "aac", tone(440, 0.5)).read_bytes()
    end = 0
    for _ in range(units):
        # The 13 bits of an ADTS header that say how long the unit is.
        end += (whole[end + 3] & 3) << 11 | whole[end + 4] << 3 | whole[end + 5] >> 5
    (tmp_path / "short.aac").write_bytes(whole[:end])
    source = MediaFile(tmp_path / "short.aac")
    assert len(source.read(SECOND_NS)) == units
    source.close()


def test_pauses_of_opus_stay_where_they_are(tmp_path: Path) -> None:
    """Discontinuous transmission leaves packets out; the next one says when it plays."""
    import av

    path = write(tmp_path / "whole.webm", "libopus", tone(300, 1))
    with av.open(str(path)) as source, av.open(str(tmp_path / "paused.webm"), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(source.streams.audio[0])):
            if packet.dts is not None and not 10 <= number < 20:
                packet.stream = stream
                sink.mux(packet)
    media = MediaFile(tmp_path / "paused.webm")
    times = [frame.media_time_ns // 20_000_000 for frame in media.read(60 * SECOND_NS)]
    media.close()
    assert times[:10] == list(range(10))
    assert times[10:20] == list(range(20, 30))


async def test_progress_goes_up_and_ends_when_all_is_safe(
    media_room: Scripted, client: Client, tmp_path: Path
) -> None:
    told: list[PublishProgress] = []
    path = write(tmp_path / "clip.ogg", "libopus", tone(440, 2.5))
    await publish(client, path, on_progress=told.append)
    assert [each.done for each in told] == [False] * (len(told) - 1) + [True]
    assert [each.published_ns for each in told] == sorted(each.published_ns for each in told)
    assert told[-1].duration_ns == pytest.approx(2.5 * SECOND_NS, rel=0.02)
    assert told[-1].published_ns == pytest.approx(2.5 * SECOND_NS, rel=0.02)


async def test_real_time_on_a_live_room(server: Scripted, client: Client, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.ogg", "libopus", tone(440, 0.4))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    statistics = await client.publish_file(path, "app", "room", "user")
    took = loop.time() - begun
    frames = received(server)[1]
    assert 0.4 <= took < 2
    assert statistics.published_frames == len(frames) == len(packets(path))
    assert statistics.unacknowledged_frames == 0


async def test_what_a_live_room_does_not_take(server: Scripted, client: Client, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.ogg", "libopus", tone(440, 0.1))
    for options in ({"realtime": False}, {"start_time_ns": START_NS}):
        with pytest.raises(ValueError, match="only in real time"):
            await client.publish_file(path, "app", "room", "user", **options)
    server.ingest.faults.append(Faults(refusal=Refusal(error_pb2.ERROR_REASON_ROOM_NOT_FOUND, "no room")))
    with pytest.raises(NotFound, match="no room"):
        await client.publish_file(path, "app", "room", "user")


async def test_files_that_are_none(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client.publish_file(tmp_path / "missing.ogg", "app", "room", "user")
    (tmp_path / "text.ogg").write_text("no media at all")
    with pytest.raises(ValueError, match="no media file"):
        await client.publish_file(tmp_path / "text.ogg", "app", "room", "user")
    picture = tmp_path / "picture.srt"
    picture.write_text("1\n00:00:00,000 --> 00:00:01,000\nno sound\n")
    with pytest.raises(ValueError, match="has no audio"):
        await client.publish_file(picture, "app", "room", "user")


@dataclass
class Endless:
    """Frames of 20 ms without content."""

    frames: int
    position: int = 0
    duration_ns: int | None = None

    def read(self, at_least_ns: int) -> list[MediaFrame]:
        first, self.position = self.position, min(self.frames, self.position + at_least_ns // 20_000_000)
        starts = [number * 20_000_000 for number in range(first, self.position)]
        return [MediaFrame(b"", start, start, 20_000_000) for start in starts]


@dataclass
class Witness:
    """Writes down how late each frame was published, and stalls now and then as a full window does."""

    clock: FakeClock
    lateness_ns: list[int] = field(default_factory=list)
    closed_ns: int | None = None

    async def publish(
        self, track_id: str, payload: bytes, *, capture_time_ns: int | None, media_time_ns: int | None
    ) -> int:
        assert media_time_ns is not None
        assert capture_time_ns == START_NS + media_time_ns
        due_ns = 5 * SECOND_NS + media_time_ns + 20_000_000
        self.lateness_ns.append(self.clock.monotonic - due_ns)
        if len(self.lateness_ns) % 10_000 == 0:
            self.clock.monotonic += SECOND_NS
        return len(self.lateness_ns)

    def advance(self, track_id: str, until_ns: int) -> None:
        # What is said to be silent is what comes before the next frame, and no more.
        assert until_ns == START_NS + len(self.lateness_ns) * 20_000_000

    async def close(self, at_ns: int | None) -> None:
        self.closed_ns = at_ns


async def test_pacing_does_not_drift() -> None:
    """An hour with sleeps that are up to 15 ms late, and stalls of a second: every frame keeps its own place."""
    clock = FakeClock()
    witness = Witness(clock)
    source = Endless(3600 * 50)
    await publish_media(
        witness,
        "audio",
        source,
        source.read(SECOND_NS),
        start_ns=START_NS,
        realtime=True,
        clock=clock,
        on_progress=None,
    )
    assert len(witness.lateness_ns) == 3600 * 50
    assert min(witness.lateness_ns) >= 0
    calm = [late for number, late in enumerate(witness.lateness_ns) if number % 10_000 >= 100]
    assert max(calm) <= 15_000_000
    assert witness.closed_ns == START_NS + 3600 * SECOND_NS


async def test_who_is_cancelled_leaves(server: Scripted, client: Client, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.ogg", "libopus", tone(440, 30))
    publishing = asyncio.create_task(client.publish_file(path, "app", "room", "user", settings=FAST))
    await server.ingest.until(lambda: bool(server.ingest.lives and server.ingest.lives[0].frames()))
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert server.ingest.lives[0].messages[-1].HasField("close")
