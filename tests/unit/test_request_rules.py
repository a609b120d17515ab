"""What StartRecord and ModifyRecordInfo refuse, by profile."""

import pytest
from google.protobuf import duration_pb2

from roomtape.v1 import application_pb2, error_pb2, media_pb2, task_pb2
from roomtape_service.errors import Refusal
from roomtape_service.recording.aac import AAC_RATES
from roomtape_service.rules.profiles import PROFILES, Profile, profile_of
from roomtape_service.rules.requests import check_mode, check_output, check_subscription, filled_output

OURS = PROFILES[application_pb2.PROFILE_ROOMTAPE]
GME = PROFILES[application_pb2.PROFILE_GME]


M4A = media_pb2.CONTAINER_M4A


def subscription(allow: int = 0, block: int = 0) -> task_pb2.Subscription:
    return task_pb2.Subscription(
        audio=task_pb2.UserFilter(
            allow_user_ids=[f"a{i}" for i in range(allow)], block_user_ids=[f"b{i}" for i in range(block)]
        )
    )


@pytest.mark.parametrize("mode", [0, 4, -1])
def test_unknown_modes_are_refused(mode: int) -> None:
    with pytest.raises(Refusal) as caught:
        check_mode(task_pb2.RecordMode.ValueType(mode))
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_RECORD_MODE
    assert caught.value.fields[0].field == "mode"


@pytest.mark.parametrize("profile", [OURS, GME])
def test_lists_are_taken_up_to_the_profiles_limit(profile: Profile) -> None:
    check_subscription(subscription(allow=profile.list_limit), profile)
    check_subscription(subscription(block=profile.list_limit), profile)
    with pytest.raises(Refusal) as caught:
        check_subscription(subscription(allow=profile.list_limit + 1), profile)
    assert caught.value.reason == error_pb2.ERROR_REASON_TOO_MANY_ALLOWED_USERS
    with pytest.raises(Refusal) as caught:
        check_subscription(subscription(block=profile.list_limit + 1), profile)
    assert caught.value.reason == error_pb2.ERROR_REASON_TOO_MANY_BLOCKED_USERS


def test_both_lists_are_refused() -> None:
    with pytest.raises(Refusal) as caught:
        check_subscription(subscription(allow=1, block=1), OURS)
    assert caught.value.reason == error_pb2.ERROR_REASON_SUBSCRIPTION_CONFLICT


@pytest.mark.parametrize(
    ("output", "reason", "field"),
    [
        (
            task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_UNSPECIFIED]),
            error_pb2.ERROR_REASON_INVALID_CONTAINER,
            "output.single_containers[0]",
        ),
        (
            task_pb2.OutputSettings(mixed_containers=[media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_MP3]),
            error_pb2.ERROR_REASON_INVALID_CONTAINER,
            "output.mixed_containers[1]",
        ),
        (
            task_pb2.OutputSettings(mixed_containers=[media_pb2.CONTAINER_OGG]),
            error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER,
            "output.mixed_containers",
        ),
        (
            task_pb2.OutputSettings(segment_duration=duration_pb2.Duration(nanos=999_999_999)),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.segment_duration",
        ),
        (
            task_pb2.OutputSettings(segment_duration=duration_pb2.Duration(seconds=86_401)),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.segment_duration",
        ),
        (
            task_pb2.OutputSettings(audio_bitrate_bps=64_001),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.audio_bitrate_bps",
        ),
        *(
            (
                task_pb2.OutputSettings(audio_sample_rate_hz=rate),
                error_pb2.ERROR_REASON_INVALID_VALUE,
                "output.audio_sample_rate_hz",
            )
            for rate in (-1, 7_999, 8_001, 47_999, 48_001, 96_000)
        ),
        *(
            (
                task_pb2.OutputSettings(audio_channels=channels),
                error_pb2.ERROR_REASON_INVALID_VALUE,
                "output.audio_channels",
            )
            for channels in (-1, 3)
        ),
        (
            task_pb2.OutputSettings(single_containers=[M4A], audio_bitrate_bps=15_999),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.audio_bitrate_bps",
        ),
        (
            task_pb2.OutputSettings(mixed_containers=[M4A], audio_bitrate_bps=320_001),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.audio_bitrate_bps",
        ),
        (
            task_pb2.OutputSettings(
                single_containers=[M4A, media_pb2.CONTAINER_MP3], audio_bitrate_bps=16_000
            ),
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.audio_bitrate_bps",
        ),
    ],
)
def test_output_that_can_not_be_is_refused(
    output: task_pb2.OutputSettings, reason: error_pb2.ErrorReason.ValueType, field: str
) -> None:
    with pytest.raises(Refusal) as caught:
        check_output(output)
    assert caught.value.reason == reason
    assert caught.value.fields[0].field == field


@pytest.mark.parametrize("bitrate_bps", [16_000, 64_001, 320_000])
def test_aac_has_any_bit_rate_in_its_bounds(bitrate_bps: int) -> None:
    check_output(task_pb2.OutputSettings(single_containers=[M4A], audio_bitrate_bps=bitrate_bps))


@pytest.mark.parametrize("rate", AAC_RATES)
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_files_have_any_rate_and_channels_that_encoders_have(rate: int, channels: int) -> None:
    check_output(task_pb2.OutputSettings(audio_sample_rate_hz=rate, audio_channels=channels))


def test_defaults_are_filled_in_and_then_hold() -> None:
    filled = filled_output(task_pb2.OutputSettings(), OURS)
    check_output(filled)
    assert list(filled.single_containers) == [media_pb2.CONTAINER_MP3]
    assert list(filled.mixed_containers) == [media_pb2.CONTAINER_MP3]
    assert filled.segment_duration.ToSeconds() == 7200
    assert filled.audio_bitrate_bps == 64000


def test_a_profile_of_a_later_version_is_ours() -> None:
    assert profile_of(application_pb2.Profile.ValueType(99)) is OURS
