"""A room on which speakers with tones of their own come and go, and the log of who spoke when."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roomtape.client import Client, Publisher, PublisherSettings
from roomtape.v1 import ingest_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.support.audio import Samples, a_law, aac_units, mu_law, opus_packets, tone
from tests.support.manifests import assert_verified, is_on_disk
from tests.support.waiting import eventually

__all__ = [
    "MS",
    "OPUS",
    "PCM",
    "SECOND",
    "START_NS",
    "TRACK",
    "Sound",
    "Speaker",
    "Spoken",
    "Stage",
    "pcm_frames",
]

SECOND = 1_000_000_000
MS = 1_000_000
TRACK = "mic"
START_NS = 1_700_000_000 * SECOND
_FRAME_MS = 20
_AAC_SAMPLES = 1024
_LAWS = {media_pb2.CODEC_PCMU: mu_law, media_pb2.CODEC_PCMA: a_law}
_SETTLE_SECONDS = 0.6
"""More than the margin by which a worker stays behind what a publisher calls complete, and than encoders keep back."""
_END_SECONDS = 30.0
_QUICK = PublisherSettings(heartbeat_seconds=0.05, batch_seconds=0.02)
_LIVE = PublisherSettings()


@dataclass(frozen=True, slots=True)
class Sound:
    """How a track is encoded."""

    codec: media_pb2.Codec.ValueType
    rate: int = 48_000
    channels: int = 1
    frame_ms: int = _FRAME_MS

    def frames(self, signal: Samples) -> list[bytes]:
        """Payloads of a signal, whose length is a whole number of frames."""
        if self.codec == media_pb2.CODEC_OPUS:
            bitrate = 48_000 * self.channels
            return opus_packets(signal, bitrate, self.frame_ms)[: len(signal) // self.samples]
        if self.codec == media_pb2.CODEC_AAC:
            return aac_units(signal, self.rate)[: -(-len(signal) // self.samples)]
        if self.codec in _LAWS:
            size, data = self.samples * self.channels, _LAWS[self.codec](signal)
            return [data[at : at + size] for at in range(0, len(data), size)]
        return pcm_frames(signal, self.samples)

    @property
    def samples(self) -> int:
        """Of a frame."""
        return _AAC_SAMPLES if self.codec == media_pb2.CODEC_AAC else self.rate * self.frame_ms // 1000

    @property
    def frame_ns(self) -> int:
        """Of a frame."""
        return self.samples * SECOND // self.rate


OPUS = Sound(media_pb2.CODEC_OPUS)
PCM = Sound(media_pb2.CODEC_PCM_S16LE)


def pcm_frames(signal: Samples, samples: int) -> list[bytes]:
    """Payloads of `samples` each; the last may be shorter."""
    return [signal[at : at + samples].astype("<i2").tobytes() for at in range(0, len(signal), samples)]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A stretch of speech by the publisher's clock: from when its first sample was captured to after its last."""

    start_ns: int
    end_ns: int


@dataclass
class Speaker:
    """One user, whose tone is nobody else's. `log` is what they said, `frames` all that they published."""

    user_id: str
    hertz: float
    sound: Sound = OPUS
    dbfs: float = -20.0
    log: list[Spoken] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    publisher: Publisher | None = None
    start_ns: int = 0

    @property
    def offer(self) -> ingest_pb2.TrackOffer:
        """The track."""
        sound = self.sound
        return ingest_pb2.TrackOffer(
            track_id=TRACK, codec=sound.codec, sample_rate_hz=sound.rate, channels=sound.channels
        )

    def live(self) -> Publisher:
        """The publisher of someone who is in the room."""
        assert self.publisher is not None, f"{self.user_id} is not in the room"
        return self.publisher

    async def say(self, payloads: Sequence[bytes], at_ns: int, *, is_live: bool) -> int:
        """Publishes frames that were captured one after the other from `at_ns`; returns when they ended."""
        publisher, begin_ns = self.live(), at_ns
        for payload in payloads:
            end_ns = at_ns + self._duration_ns(payload)
            if is_live:
                # A microphone hands out a frame when it is over.
                await asyncio.sleep(max(0.0, (end_ns - time.time_ns()) / SECOND))
            await publisher.publish(
                TRACK, payload, capture_time_ns=at_ns, media_time_ns=at_ns - self.start_ns
            )
            at_ns = end_ns
        self.frames += payloads
        if self.log and self.log[-1].end_ns == begin_ns:
            begin_ns = self.log.pop().start_ns
        self.log.append(Spoken(begin_ns, at_ns))
        return at_ns

    def _duration_ns(self, payload: bytes) -> int:
        if self.sound.codec in (media_pb2.CODEC_OPUS, media_pb2.CODEC_AAC):
            return self.sound.frame_ns
        if self.sound.codec in _LAWS:
            return len(payload) // self.sound.channels * SECOND // self.sound.rate
        return len(payload) // (2 * self.sound.channels) * SECOND // self.sound.rate


class Stage:
    """A room with what is recorded of it. `now_ns` is where everybody is, by the publishers' clock.

    On a MEDIA clock the play goes as fast as the service takes it, on a live one in real time.
    """

    def __init__(
        self,
        client: Client,
        room_id: str,
        *,
        app_id: str = "app",
        is_live: bool = False,
        publishing: Client | None = None,
    ) -> None:
        """`publishing`: by which client the speakers publish, if by another one."""
        self.client = client
        self.room_id = room_id
        self.app_id = app_id
        self.now_ns = START_NS
        self.task_id = ""
        self.speakers: list[Speaker] = []
        self._leaving: list[asyncio.Task[None]] = []
        self._is_live = is_live
        self._publishing = publishing or client

    async def record(
        self,
        mode: task_pb2.RecordMode.ValueType = task_pb2.RECORD_MODE_SINGLE,
        *,
        singles: Sequence[media_pb2.Container.ValueType] = (),
        mixes: Sequence[media_pb2.Container.ValueType] = (),
        segment_seconds: float | None = None,
        allow: Sequence[str] = (),
        block: Sequence[str] = (),
        output: task_pb2.OutputSettings | None = None,
    ) -> None:
        """Opens the room and starts a task; `output` instead of containers and seconds."""
        clock = room_pb2.ROOM_CLOCK_ARRIVAL if self._is_live else room_pb2.ROOM_CLOCK_MEDIA
        await self.client.rooms.CreateRoom(
            room_pb2.CreateRoomRequest(app_id=self.app_id, room_id=self.room_id, clock=clock)
        )
        output = output or task_pb2.OutputSettings(single_containers=singles, mixed_containers=mixes)
        if segment_seconds is not None:
            output.segment_duration.FromNanoseconds(round(segment_seconds * SECOND))
        started = await self.client.recording.StartRecord(
            task_pb2.StartRecordRequest(
                app_id=self.app_id,
                room_id=self.room_id,
                mode=mode,
                subscription=_subscription(allow, block),
                output=output,
            )
        )
        self.task_id = started.task.task_id
        if self._is_live:
            self.now_ns = time.time_ns()

    async def modify(
        self,
        *,
        mode: task_pb2.RecordMode.ValueType | None = None,
        allow: Sequence[str] | None = None,
        block: Sequence[str] | None = None,
    ) -> None:
        """Changes the task, with all that was said so far on disk."""
        await self.settle()
        request = task_pb2.ModifyRecordInfoRequest(app_id=self.app_id, task_id=self.task_id)
        if mode is not None:
            request.mode = mode
            request.update_mask.paths.append("mode")
        if allow is not None or block is not None:
            request.subscription.CopyFrom(_subscription(allow or (), block or ()))
            request.update_mask.paths.append("subscription")
        await self.client.recording.ModifyRecordInfo(request)

    async def join(self, *speakers: Speaker) -> None:
        """Speakers come in, now."""
        for speaker in speakers:
            publisher = self._publishing.publisher(
                self.app_id,
                self.room_id,
                speaker.user_id,
                [speaker.offer],
                start_time_ns=None if self._is_live else self.now_ns,
                settings=_LIVE if self._is_live else _QUICK,
            )
            await publisher.open()
            speaker.publisher, speaker.start_ns = publisher, self.now_ns
            self.speakers.append(speaker)
        if self._is_live:
            self.now_ns = time.time_ns()

    async def leave(self, *speakers: Speaker) -> None:
        """Speakers go, now; returns when the room knows."""
        for speaker in speakers:
            self.speakers.remove(speaker)
            # On a live clock a mix has the last of them when the others have gone on: their goodbye comes later.
            self._leaving.append(asyncio.create_task(speaker.live().close()))
            speaker.publisher = None
        gone = {speaker.user_id for speaker in speakers}

        async def have_left() -> bool:
            return gone.isdisjoint(each.user_id for each in await self._participants())

        await eventually(have_left, f"{gone} have left")

    async def mute(self, speaker: Speaker, muted: bool) -> None:
        """A speaker says that they are silent, or speak again, with all that was said so far on disk."""
        await self.settle()
        speaker.live().mute(TRACK, muted)

        async def is_muted() -> bool:
            return any(
                each.user_id == speaker.user_id and each.tracks[0].muted == muted
                for each in await self._participants()
            )

        await eventually(is_muted, f"{speaker.user_id} is {'muted' if muted else 'heard'}")

    async def talk(self, seconds: float, *speakers: Speaker) -> None:
        """So much time passes, in which these speak, each their tone, and the others are silent."""
        await self.play(
            seconds,
            {
                speaker.user_id: tone(
                    speaker.hertz, seconds, speaker.sound.rate, speaker.dbfs, speaker.sound.channels
                )
                for speaker in speakers
            },
        )

    async def play(self, seconds: float, signals: Mapping[str, Samples]) -> None:
        """So much time passes, in which users publish signals, as long as it, and the others are silent."""
        end_ns = self.now_ns + round(seconds * SECOND)
        saying = []
        for speaker in self.speakers:
            if speaker.user_id in signals:
                payloads = speaker.sound.frames(signals[speaker.user_id])
                saying.append(speaker.say(payloads, self.now_ns, is_live=self._is_live))
        await asyncio.gather(*saying)
        if self._is_live:
            await asyncio.sleep(max(0.0, (end_ns - time.time_ns()) / SECOND))
        else:
            for speaker in self.speakers:
                speaker.live().advance(TRACK, end_ns)
        self.now_ns = end_ns

    async def settle(self) -> None:
        """Everybody is silent until all that was said is safe."""
        await self.talk(_SETTLE_SECONDS)
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.gather(*(speaker.live().flush() for speaker in self.speakers))

    async def end(self) -> list[segment_pb2.Segment]:
        """All go, the task stops; its segments when all are in the store, and its manifest was found to be right."""
        await self.leave(*list(self.speakers))
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.gather(*self._leaving)
        await self.client.recording.StopRecord(
            task_pb2.StopRecordRequest(app_id=self.app_id, task_id=self.task_id)
        )
        async with asyncio.timeout(_END_SECONDS):
            described = await self.client.wait_until_complete(self.app_id, self.task_id)
        await self.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id=self.app_id, room_id=self.room_id))
        assert described.task.state == task_pb2.TASK_STATE_COMPLETED
        if await is_on_disk(self.client, self.app_id, self.task_id):
            await assert_verified(self.client, self.app_id, self.task_id)
        return sorted(
            described.segments,
            key=lambda each: (each.kind, each.user_id, each.segment_id, each.container),
        )

    async def _participants(self) -> Sequence[room_pb2.Participant]:
        request = room_pb2.DescribeRoomRequest(app_id=self.app_id, room_id=self.room_id)
        return (await self.client.rooms.DescribeRoom(request)).room.participants


def _subscription(allow: Sequence[str], block: Sequence[str]) -> task_pb2.Subscription:
    return task_pb2.Subscription(audio=task_pb2.UserFilter(allow_user_ids=allow, block_user_ids=block))
