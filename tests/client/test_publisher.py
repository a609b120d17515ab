"""A publisher loses no frame over whatever happens to its streams, and says the truth about its clock."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from roomtape.client import (
    Aborted,
    Cancelled,
    Client,
    DeadlineExceeded,
    NotFound,
    Publisher,
    PublisherSettings,
    Unavailable,
)
from roomtape.v1 import error_pb2, ingest_pb2, media_pb2, room_pb2
from roomtape_service.errors import Refusal
from tests.client.conftest import QUICK
from tests.client.proxy import tcp_proxy
from tests.client.scripted import Faults, Scripted, scripted_server

PCM = ingest_pb2.TrackOffer(
    track_id="audio", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1
)
FRAME_SAMPLES = 960
FRAME_NS = 20_000_000
START_NS = 1_700_000_000_000_000_000

FAST = PublisherSettings(batch_seconds=0.005, heartbeat_seconds=0.02)


def payload(number: int) -> bytes:
    """A frame that is unlike all others."""
    return number.to_bytes(2, "big") * FRAME_SAMPLES


def publisher(client: Client, settings: PublisherSettings = FAST, **options: object) -> Publisher:
    return client.publisher("app", "room", "user", [PCM], settings=settings, **options)  # type: ignore[arg-type]


async def publish(publisher: Publisher, numbers: Sequence[int]) -> None:
    for number in numbers:
        await publisher.publish("audio", payload(number))


@pytest.fixture
async def other() -> AsyncIterator[Scripted]:
    """A second server."""
    async with scripted_server() as scripted:
        yield scripted


async def test_frames_arrive_and_close_waits_for_the_goodbye(server: Scripted, client: Client) -> None:
    acknowledged: list[tuple[str, int]] = []
    async with publisher(
        client, on_acknowledged=lambda track_id, sequence: acknowledged.append((track_id, sequence))
    ) as session:
        assert session.room_clock == room_pb2.ROOM_CLOCK_ARRIVAL
        await publish(session, range(50))
    assert server.ingest.payloads(session.publish_session_id) == [payload(number) for number in range(50)]
    assert acknowledged[-1] == ("audio", 50)
    opening = server.ingest.lives[0].open
    assert (opening.app_id, opening.room_id, opening.user_id) == ("app", "room", "user")
    assert list(opening.tracks) == [PCM]
    statistics = session.statistics()
    assert statistics.published_frames == 50
    assert (statistics.unsent_frames, statistics.unacknowledged_frames, statistics.unacknowledged_bytes) == (
        0,
        0,
        0,
    )
    assert (statistics.streams, statistics.resent_frames, statistics.rejected_frames) == (1, 0, 0)
    with pytest.raises(ValueError, match="not open"):
        await session.publish("audio", payload(1))


BREAKS = {
    "internal": Faults(abort_after_frames=7),
    "draining": Faults(drain_after_frames=7),
    "ended": Faults(end_after_frames=7),
    "all lost": Faults(abort_after_frames=7, loses=True),
    "nothing acknowledged": Faults(abort_after_frames=7, loses=True, keep_acknowledgements=True),
    "refused for now": Faults(
        refuse_after_frames=(
            7,
            Refusal(error_pb2.ERROR_REASON_NO_CAPACITY, "later", retry_after_seconds=0.01),
        )
    ),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_a_session_goes_on_in_the_next_stream(server: Scripted, client: Client, fault: Faults) -> None:
    server.ingest.faults.append(fault)
    server.ingest.released.set()
    async with publisher(client) as session:
        for number in range(60):
            await publish(session, [number])
            await asyncio.sleep(0)
            if number == 20:
                await server.ingest.until(lambda: len(server.ingest.lives) >= 2)
    assert server.ingest.payloads(session.publish_session_id) == [payload(number) for number in range(60)]
    assert {life.open.publish_session_id for life in server.ingest.lives} == {session.publish_session_id}
    assert session.statistics().streams == len(server.ingest.lives) == 2


async def test_only_what_is_not_safe_is_sent_again(server: Scripted, client: Client) -> None:
    server.ingest.faults.append(Faults(abort_after_frames=20, loses=True))
    async with publisher(client) as session:
        await publish(session, range(10))
        await session.flush()
        await publish(session, range(10, 30))
        await session.flush()
    assert min(frame.sequence for frame in server.ingest.lives[1].frames()) > 10
    again = [frame.sequence for frame in server.ingest.lives[1].frames()]
    first = {frame.sequence: frame for frame in server.ingest.lives[0].frames()}
    for frame in server.ingest.lives[1].frames():
        assert first.get(frame.sequence, frame) == frame
    assert session.statistics().resent_frames == len(set(first) & set(again))


async def test_a_server_that_forgot_the_session_gets_what_it_did_not_call_safe(
    server: Scripted, client: Client
) -> None:
    server.ingest.forgets_sessions = True
    server.ingest.faults.append(Faults(abort_after_frames=10, keep_acknowledgements=True))
    async with publisher(client) as session:
        session.mute("audio", True)
        await publish(session, range(10))
        await server.ingest.until(lambda: bool(server.ingest.lives[0].frames()))
        server.ingest.released.set()
    assert server.ingest.payloads(session.publish_session_id) == [payload(number) for number in range(10)]
    assert server.ingest.lives[-1].messages[0].mute.muted


async def test_the_state_of_a_mute_outlives_a_forgotten_session(server: Scripted, client: Client) -> None:
    server.ingest.faults.append(Faults(abort_after_frames=3))
    async with publisher(client) as session:
        await publish(session, [1])
        session.mute("audio", True)
        await publish(session, [2])
        await session.flush()
        server.ingest.forgets_sessions = True
        await publish(session, [3])
        await server.ingest.until(lambda: len(server.ingest.lives) == 2)
        await session.flush()
    kinds = [message.WhichOneof("message") for message in server.ingest.lives[0].messages]
    assert kinds.index("mute") == kinds.index("frames") + 1
    assert server.ingest.lives[1].messages[0].mute == ingest_pb2.TrackMute(track_id="audio", muted=True)


async def test_redirects_are_followed_with_the_same_session(
    server: Scripted, other: Scripted, client: Client
) -> None:
    server.ingest.faults.append(Faults(redirect=other.target))
    other.ingest.faults.append(Faults(abort_after_frames=5))
    async with publisher(client) as session:
        await publish(session, range(10))
        # The other server broke the stream: home knows best where the room is now.
        await server.ingest.until(lambda: len(server.ingest.lives) == 2)
    ids = {life.open.publish_session_id for life in (*server.ingest.lives, *other.ingest.lives)}
    assert ids == {session.publish_session_id}
    kept = (
        other.ingest.kept[session.publish_session_id, "audio"]
        | server.ingest.kept[session.publish_session_id, "audio"]
    )
    assert [kept[number + 1].payload for number in range(10)] == [payload(number) for number in range(10)]
    assert session.statistics().redirects == 1


async def test_a_circle_of_redirects_ends(server: Scripted, client: Client) -> None:
    server.ingest.faults.extend([Faults(redirect=server.target)] * 20)
    with pytest.raises(Unavailable, match="redirected 6 times"):
        await publisher(client).open()


async def test_a_cut_connection_and_a_server_that_is_away(server: Scripted) -> None:
    async with (
        tcp_proxy(server.target) as proxy,
        Client(f"127.0.0.1:{proxy.port}", retry=QUICK) as client,
        publisher(client) as session,
    ):
        await publish(session, range(20))
        proxy.cut()
        await publish(session, range(20, 40))
        await server.ingest.until(lambda: len(server.ingest.lives) == 2)
        await proxy.stop()
        await publish(session, range(40, 60))
        await proxy.start()
        await session.flush()
    assert server.ingest.payloads(session.publish_session_id) == [payload(number) for number in range(60)]


async def test_a_full_window_holds_the_publisher_back(server: Scripted, client: Client) -> None:
    server.ingest.faults.append(Faults(keep_acknowledgements=True))
    settings = replace(FAST, window_frames=8)
    async with publisher(client, settings) as session:
        await publish(session, range(8))
        ninth = asyncio.create_task(session.publish("audio", payload(8)))
        await server.ingest.until(lambda: len(server.ingest.lives[0].frames()) > 0)
        assert not ninth.done()
        assert session.statistics().unacknowledged_frames == 8
        ninth.cancel()
        await asyncio.wait({ninth})
        assert session.statistics().published_frames == 8
        server.ingest.released.set()
        assert await session.publish("audio", payload(9)) == 9
    bytes_settings = replace(FAST, window_bytes=len(payload(0)) * 3)
    server.ingest.released.clear()
    server.ingest.faults.append(Faults(keep_acknowledgements=True))
    async with publisher(client, bytes_settings) as session:
        await publish(session, range(3))
        fourth = asyncio.create_task(session.publish("audio", payload(3)))
        await server.ingest.until(lambda: len(server.ingest.lives[1].frames()) > 0)
        assert not fourth.done()
        server.ingest.released.set()
        assert await fourth == 4


async def test_heartbeats_tell_the_clock_without_frames(server: Scripted, client: Client) -> None:
    async with publisher(client):
        await server.ingest.until(lambda: len(server.ingest.lives[0].messages) >= 4)
    beats = [message.frames for message in server.ingest.lives[0].messages[:4]]
    assert not any(beat.frames for beat in beats)
    times = [beat.sent_time.ToNanoseconds() for beat in beats]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 3 * 20_000_000 * 0.9


async def test_frames_are_batched(server: Scripted, client: Client) -> None:
    settings = PublisherSettings(batch_seconds=0.05, batch_frames=10)
    async with publisher(client, settings) as session:
        await publish(session, range(4))
        await server.ingest.until(lambda: bool(server.ingest.lives[0].frames()))
        await publish(session, range(4, 14))
        await session.flush()
    sizes = [len(message.frames.frames) for message in server.ingest.lives[0].messages]
    assert [size for size in sizes if size] == [4, 10]


async def test_a_media_room_hears_only_how_far_the_media_is(server: Scripted, client: Client) -> None:
    server.ingest.clock = room_pb2.ROOM_CLOCK_MEDIA
    async with publisher(client, start_time_ns=START_NS) as session:
        await publish(session, range(5))
        await session.flush()
        session.advance("audio", START_NS + 7 * FRAME_NS)
        messages = server.ingest.lives[0].messages
        await server.ingest.until(
            lambda: messages[-1].frames.sent_time.ToNanoseconds() == START_NS + 7 * FRAME_NS
        )
        await session.publish("audio", payload(5), capture_time_ns=START_NS + 20 * FRAME_NS)
    life = server.ingest.lives[0]
    assert life.open.sent_time.ToNanoseconds() == START_NS
    frames = life.frames()
    assert [frame.capture_time.ToNanoseconds() - START_NS for frame in frames] == [
        number * FRAME_NS for number in (0, 1, 2, 3, 4, 20)
    ]
    assert [frame.media_time.ToNanoseconds() for frame in frames] == [
        number * FRAME_NS for number in (0, 1, 2, 3, 4, 20)
    ]
    known_ns = START_NS
    for message in life.messages[:-1]:
        for frame in message.frames.frames:
            assert frame.capture_time.ToNanoseconds() >= known_ns
        known_ns = message.frames.sent_time.ToNanoseconds()
    assert life.messages[-1].close.sent_time.ToNanoseconds() == START_NS + 21 * FRAME_NS


async def test_a_resend_does_not_claim_what_is_still_to_come(server: Scripted, client: Client) -> None:
    """`complete_time` says that all captured before it was sent: while older frames wait it stays behind them."""
    server.ingest.faults.append(Faults(abort_after_frames=1, keep_acknowledgements=True))
    async with publisher(client, replace(FAST, window_frames=2_000)) as session:
        await publish(session, [0])
        await server.ingest.until(lambda: bool(server.ingest.lives[0].frames()))
        await publish(session, range(1, 1_200))
        server.ingest.released.set()
        await session.flush()
    for life in server.ingest.lives:
        for earlier, later in zip(life.messages, life.messages[1:], strict=False):
            batch = earlier.frames
            complete = batch.complete_time if batch.HasField("complete_time") else batch.sent_time
            for frame in later.frames.frames:
                assert frame.capture_time.ToNanoseconds() + FRAME_NS >= complete.ToNanoseconds()
    batches = [len(message.frames.frames) for message in server.ingest.lives[-1].messages]
    assert max(batches) <= 512


async def test_silence_is_what_was_told(server: Scripted, client: Client) -> None:
    """A live source that is late itself does not claim with its heartbeats that nothing was captured since."""
    async with publisher(client, replace(FAST, told_silence=True)) as session:
        messages = server.ingest.lives[0].messages

        async def complete_until(time_ns: int) -> None:
            await server.ingest.until(
                lambda: any(
                    message.frames.complete_time.ToNanoseconds() == time_ns
                    and message.frames.sent_time.ToNanoseconds() > time_ns
                    for message in messages[-1:]
                )
            )

        joined_ns = session.start_time_ns
        await complete_until(joined_ns)
        await session.publish("audio", payload(0), capture_time_ns=joined_ns)
        await complete_until(joined_ns + FRAME_NS)
        session.advance("audio", joined_ns + 2 * FRAME_NS)
        await complete_until(joined_ns + 2 * FRAME_NS)
    sent = [message.frames.sent_time.ToNanoseconds() for message in messages if message.HasField("frames")]
    assert sent == sorted(sent)


async def test_refusals_end_the_session_with_their_error(server: Scripted, client: Client) -> None:
    missing = Refusal(error_pb2.ERROR_REASON_ROOM_NOT_FOUND, "no room 'room'")
    server.ingest.faults.append(Faults(refusal=missing))
    with pytest.raises(NotFound, match="no room 'room'") as caught:
        async with publisher(client):
            pass
    assert caught.value.reason == error_pb2.ERROR_REASON_ROOM_NOT_FOUND
    replaced = Refusal(error_pb2.ERROR_REASON_PUBLISH_REPLACED, "a newer session")
    server.ingest.faults.append(Faults(refuse_after_frames=(2, replaced)))
    session = publisher(client, replace(FAST, window_frames=2))
    await session.open()
    with pytest.raises(Aborted):
        await publish(session, range(3))
    for step in (session.flush(), session.close(), session.publish("audio", payload(1))):
        with pytest.raises(Aborted):
            await step
    assert len(server.ingest.lives) == 2


async def test_nobody_there(server: Scripted) -> None:
    async with Client("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises(Unavailable):
            await publisher(client, replace(FAST, open_seconds=0.05)).open()
    server.ingest.faults.extend([Faults(silent=True)] * 9)
    async with Client(server.target, retry=QUICK) as client:
        with pytest.raises(DeadlineExceeded, match="did not answer `open`"):
            await publisher(client, replace(FAST, open_seconds=0.1, reply_seconds=0.05)).open()


async def test_an_outage_that_is_too_long_is_given_up(server: Scripted, client: Client) -> None:
    refusal = Refusal(error_pb2.ERROR_REASON_DRAINING, "stopping", retry_after_seconds=5)
    server.ingest.faults.extend([Faults(abort_after_frames=1), Faults(refusal=refusal)])
    session = publisher(client, replace(FAST, outage_seconds=4))
    await session.open()
    await publish(session, [0])
    with pytest.raises(Unavailable, match="stopping"):
        await session.close()


async def test_a_goodbye_that_was_lost_with_its_room(server: Scripted) -> None:
    gone = Refusal(error_pb2.ERROR_REASON_ROOM_NOT_FOUND, "the room was closed")
    server.ingest.faults.extend([Faults(ignore_close=True), Faults(refusal=gone)])
    async with (
        tcp_proxy(server.target) as proxy,
        Client(f"127.0.0.1:{proxy.port}", retry=QUICK) as client,
        publisher(client) as session,
    ):
        await publish(session, range(3))
        await session.flush()
        closing = asyncio.create_task(session.close())
        await server.ingest.until(lambda: server.ingest.lives[0].messages[-1].HasField("close"))
        proxy.cut()
        await closing
    assert server.ingest.payloads(session.publish_session_id) == [payload(number) for number in range(3)]


async def test_dropping_a_session(server: Scripted, client: Client) -> None:
    server.ingest.faults.append(Faults(keep_acknowledgements=True))
    session = publisher(client)
    await session.aclose()
    with pytest.raises(RuntimeError, match="on purpose"):
        await _failing(session)
    await session.aclose()
    for step in (session.flush(), session.close(), session.publish("audio", payload(1))):
        with pytest.raises(Cancelled):
            await step
    server.ingest.released.set()


async def _failing(session: Publisher) -> None:
    async with session:
        await publish(session, range(3))
        raise RuntimeError("on purpose")


async def test_a_callback_that_fails_ends_the_session(server: Scripted, client: Client) -> None:
    def fail(track_id: str, sequence: int) -> None:
        raise LookupError(track_id)

    session = publisher(client, on_acknowledged=fail)
    await session.open()
    await publish(session, range(3))
    with pytest.raises(LookupError):
        await session.close()


async def test_payloads_that_can_not_be_are_refused_here(server: Scripted, client: Client) -> None:
    opus = ingest_pb2.TrackOffer(track_id="opus", codec=media_pb2.CODEC_OPUS)
    async with client.publisher("app", "room", "user", [PCM, opus], settings=FAST) as session:
        for track_id, wrong in (
            ("audio", b""),
            ("audio", b"\x00"),
            ("opus", b""),
            ("opus", b"\x03"),
            ("other", b"12"),
        ):
            with pytest.raises(ValueError, match=r"."):
                await session.publish(track_id, wrong)
        assert session.statistics().published_frames == 0
        assert await session.publish("opus", b"\x78" + bytes(20)) == 1


async def test_rejected_frames_are_counted_and_told(server: Scripted, client: Client) -> None:
    told: list[ingest_pb2.FramesRejected] = []
    rejection = ingest_pb2.FramesRejected(
        track_id="audio", first_sequence=2, last_sequence=4, reason=error_pb2.ERROR_REASON_CORRUPT_PAYLOAD
    )
    server.ingest.faults.append(Faults(rejection=rejection))
    async with publisher(client, on_rejected=told.append) as session:
        await publish(session, range(5))
    assert told == [rejection]
    assert session.statistics().rejected_frames == 3
