"""Lists, modes and mutes, changed while everybody talks: what is in no scope is in no file."""

from collections.abc import Sequence

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, room_pb2, segment_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, hear, select
from tests.support.stage import MS, OPUS, PCM, TRACK, Sound, Speaker, Spoken, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
SINGLE, MIXED = task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_MIXED
BOTH = task_pb2.RECORD_MODE_SINGLE_AND_MIXED


def cast() -> tuple[Speaker, Speaker, Speaker]:
    return (
        Speaker("ada", 600, Sound(media_pb2.CODEC_OPUS, frame_ms=40), -20),
        Speaker("ben", 1100, Sound(media_pb2.CODEC_OPUS, frame_ms=60, channels=2), -22),
        Speaker("cleo", 1700, Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100), -18),
    )


def holds(files: Sequence[segment_pb2.Segment], speaker: Speaker, *acts: int) -> None:
    """The files hold what a speaker said in these acts, and nothing else of them."""
    if not acts:
        assert not hear(files, speaker.hertz)
        return
    said: list[Spoken] = [speaker.log[act] for act in acts]
    assert_heard(files, {speaker.hertz: (said, speaker.dbfs)})


async def test_a_list_is_changed_to_another_list(client: Client) -> None:
    ada, ben, cleo = cast()
    stage = Stage(client, "lists")
    await stage.record(BOTH, singles=[WAV], mixes=[WAV], block=["cleo"])
    await stage.join(ada, ben, cleo)
    await stage.talk(0.6, ada, ben, cleo)
    await stage.modify(block=["ada"])
    await stage.talk(0.6, ada, ben, cleo)
    await stage.modify(allow=["ada", "ben"])
    await stage.talk(0.6, ada, ben, cleo)
    segments = await stage.end()
    check_files(segments)

    singles = {each.user_id: select(segments, WAV, each.user_id) for each in (ada, ben, cleo)}
    numbers = {user: [each.segment_id for each in files] for user, files in singles.items()}
    assert numbers == {"ada": [0, 1], "ben": [0], "cleo": [0]}
    holds(singles["ada"], ada, 0, 2)
    holds(singles["ben"], ben, 0, 1, 2)
    holds(singles["cleo"], cleo, 1)
    for user_id, files in singles.items():
        for other in (ada, ben, cleo):
            assert other.user_id == user_id or not hear(files, other.hertz)
    mix = select(segments, WAV)
    holds(mix, ada, 0, 2)
    holds(mix, ben, 0, 1, 2)
    holds(mix, cleo, 1)


async def test_who_is_blocked_is_nowhere(client: Client) -> None:
    ada, ben, cleo = cast()
    stage = Stage(client, "blocked")
    await stage.record(BOTH, singles=[MP3], mixes=[MP3], block=["ben"])
    await stage.join(ada, ben)
    await stage.talk(0.4, ada, ben)
    await stage.join(cleo)
    await stage.talk(0.4, ben, cleo)
    segments = await stage.end()
    check_files(segments)
    assert {each.user_id for each in segments} == {"ada", "cleo", ""}
    holds(segments, ben)
    holds(select(segments, MP3), ada, 0)
    holds(select(segments, MP3), cleo, 0)


async def test_only_who_is_allowed_is_recorded(client: Client) -> None:
    ada, ben, cleo = cast()
    stage = Stage(client, "allowed")
    await stage.record(SINGLE, singles=[WAV], allow=["ben"])
    await stage.join(ada, ben, cleo)
    await stage.talk(0.4, ada, ben, cleo)
    segments = await stage.end()
    check_files(segments)
    assert {each.user_id for each in segments} == {"ben"}
    holds(segments, ben, 0)
    holds(segments, ada)
    holds(segments, cleo)


async def test_the_mode_is_changed(client: Client) -> None:
    ada, ben, _ = cast()
    stage = Stage(client, "modes")
    await stage.record(SINGLE, singles=[WAV], mixes=[WAV])
    await stage.join(ada, ben)
    await stage.talk(0.6, ada, ben)
    await stage.modify(mode=BOTH)
    await stage.talk(0.6, ada, ben)
    await stage.modify(mode=MIXED)
    await stage.talk(0.6, ada, ben)
    await stage.modify(mode=SINGLE)
    await stage.talk(0.6, ada, ben)
    segments = await stage.end()
    check_files(segments)
    for speaker in (ada, ben):
        files = select(segments, WAV, speaker.user_id)
        assert [each.segment_id for each in files] == [0, 1]
        holds(files, speaker, 0, 1, 3)
        holds(select(segments, WAV), speaker, 1, 2)


@pytest.mark.parametrize("app_id", ["app", "gme"])
async def test_a_mute_is_silence_or_the_end_of_the_segment(client: Client, app_id: str) -> None:
    ada, ben = Speaker("ada", 700, PCM), Speaker("ben", 1200, OPUS)
    stage = Stage(client, "mutes", app_id=app_id)
    await stage.record(BOTH, singles=[OGG, WAV], mixes=[WAV])
    await stage.join(ada, ben)
    await stage.talk(0.5, ada, ben)
    await stage.mute(ada, True)
    muted_ns = stage.now_ns
    await stage.talk(0.4, ben)
    await stage.mute(ada, False)
    await stage.talk(0.5, ada, ben)
    await stage.settle()
    request = room_pb2.SetTrackMutedRequest(
        app_id=app_id, room_id="mutes", user_id="ben", track_id=TRACK, muted=True
    )
    await client.rooms.SetTrackMuted(request)
    await stage.talk(0.4, ada)
    request.muted = False
    await client.rooms.SetTrackMuted(request)
    await stage.talk(0.4, ada, ben)
    segments = await stage.end()
    check_files(segments)
    files = {"ada": select(segments, WAV, "ada"), "ben": select(segments, OGG, "ben")}
    for speaker in (ada, ben):
        parts = 2 if app_id == "gme" else 1
        assert [each.segment_id for each in files[speaker.user_id]] == list(range(parts))
        holds(files[speaker.user_id], speaker, *range(len(speaker.log)))
        holds(select(segments, WAV), speaker, *range(len(speaker.log)))
    assert [each.segment_id for each in select(segments, WAV)] == [0]
    if app_id == "gme":
        first, second = files["ada"]
        assert abs(first.end_time.ToNanoseconds() - muted_ns) < 40 * MS
        assert abs(second.start_time.ToNanoseconds() - ada.log[1].start_ns) < 40 * MS
