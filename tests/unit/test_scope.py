"""Which recordings a task has at any moment."""

from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from roomtape_service.rules.scope import AudioTrack, RecordingKey, desired_recordings
from roomtape_service.rules.subscription import selects_audio

ANNA = AudioTrack("s1/mic", media_pb2.CODEC_OPUS)
BEN = AudioTrack("s2/mic", media_pb2.CODEC_PCM_S16LE)
BEN_SCREEN = AudioTrack("s2/screen", media_pb2.CODEC_OPUS)
USERS = {"anna": [ANNA], "ben": [BEN, BEN_SCREEN]}
MIX = RecordingKey(segment_pb2.RECORDING_KIND_MIXED, "")


def single(user_id: str) -> RecordingKey:
    return RecordingKey(segment_pb2.RECORDING_KIND_SINGLE, user_id)


def filtered(*, allow: tuple[str, ...] = (), block: tuple[str, ...] = ()) -> task_pb2.Subscription:
    return task_pb2.Subscription(audio=task_pb2.UserFilter(allow_user_ids=allow, block_user_ids=block))


def test_no_list_takes_everyone() -> None:
    assert selects_audio(task_pb2.Subscription(), "anybody")


def test_an_allow_list_takes_only_its_users() -> None:
    assert selects_audio(filtered(allow=("anna",)), "anna")
    assert not selects_audio(filtered(allow=("anna",)), "ben")


def test_a_block_list_takes_all_but_its_users() -> None:
    assert not selects_audio(filtered(block=("anna",)), "anna")
    assert selects_audio(filtered(block=("anna",)), "ben")


def test_single_mode_has_one_recording_a_user_with_the_main_track() -> None:
    desired = desired_recordings(task_pb2.RECORD_MODE_SINGLE, task_pb2.Subscription(), USERS)
    assert desired == {single("anna"): (ANNA,), single("ben"): (BEN,)}


def test_mixed_mode_has_one_recording_with_every_track() -> None:
    desired = desired_recordings(task_pb2.RECORD_MODE_MIXED, task_pb2.Subscription(), USERS)
    assert desired == {MIX: (ANNA, BEN, BEN_SCREEN)}


def test_both_modes_leave_blocked_users_out_of_both() -> None:
    mode = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
    desired = desired_recordings(mode, filtered(block=("ben",)), USERS)
    assert desired == {single("anna"): (ANNA,), MIX: (ANNA,)}


def test_nobody_in_scope_is_nothing_to_record() -> None:
    mode = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
    assert desired_recordings(mode, filtered(allow=("carla",)), USERS) == {}
    assert desired_recordings(mode, task_pb2.Subscription(), {"anna": []}) == {}
