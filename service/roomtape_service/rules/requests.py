"""What a task may be told to record, by the rules of its profile."""

from collections.abc import Collection, Sequence

from google.protobuf import duration_pb2

from roomtape.v1 import error_pb2, media_pb2, task_pb2
from roomtape_service.errors import field_refusal
from roomtape_service.rules.profiles import Profile
from roomtape_service.rules.retention import retention_problem

__all__ = [
    "BITRATES_BPS",
    "MODIFIABLE_PATHS",
    "check_mode",
    "check_output",
    "check_subscription",
    "filled_output",
]

BITRATES_BPS = (
    32000,
    40000,
    48000,
    56000,
    64000,
    80000,
    96000,
    112000,
    128000,
    160000,
    192000,
    224000,
    256000,
    320000,
)
"""Bit rates of MPEG-1 layer III (ISO/IEC 11172-3, table of bitrate_index)."""

MODIFIABLE_PATHS = ("mode", "subscription")
"""What ModifyRecordInfo can change."""

_DEFAULT_BITRATE_BPS = 64000
_SECOND_NS = 1_000_000_000
_SHORTEST_SEGMENT_NS = _SECOND_NS
_LONGEST_SEGMENT_NS = 24 * 3600 * _SECOND_NS

_MODES = {task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_MIXED, task_pb2.RECORD_MODE_SINGLE_AND_MIXED}
_CONTAINERS = set(media_pb2.Container.values()) - {media_pb2.CONTAINER_UNSPECIFIED}
_AAC_CONTAINERS = {media_pb2.CONTAINER_AAC, media_pb2.CONTAINER_M4A}
_AAC_BITRATES_BPS = range(16_000, 320_001)
_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Sample rates that MP3 and AAC both have."""


def check_mode(mode: task_pb2.RecordMode.ValueType, field: str = "mode") -> None:
    """Raises Refusal INVALID_RECORD_MODE unless `mode` is one of the three."""
    if mode not in _MODES:
        raise field_refusal(
            error_pb2.ERROR_REASON_INVALID_RECORD_MODE,
            field,
            f"{mode} is no record mode; use SINGLE (1), MIXED (2) or SINGLE_AND_MIXED (3)",
            value=str(mode),
        )


def check_subscription(subscription: task_pb2.Subscription, profile: Profile) -> None:
    """Raises Refusal SUBSCRIPTION_CONFLICT, TOO_MANY_ALLOWED_USERS, TOO_MANY_BLOCKED_USERS."""
    allowed, blocked = subscription.audio.allow_user_ids, subscription.audio.block_user_ids
    if allowed and blocked:
        raise field_refusal(
            error_pb2.ERROR_REASON_SUBSCRIPTION_CONFLICT,
            "subscription.audio",
            "allow_user_ids and block_user_ids can't both be set; keep one of them",
        )
    for name, entries, reason in (
        ("allow_user_ids", allowed, error_pb2.ERROR_REASON_TOO_MANY_ALLOWED_USERS),
        ("block_user_ids", blocked, error_pb2.ERROR_REASON_TOO_MANY_BLOCKED_USERS),
    ):
        if len(entries) > profile.list_limit:
            raise field_refusal(
                reason,
                f"subscription.audio.{name}",
                f"{len(entries)} entries; the profile {profile.name} takes at most {profile.list_limit}",
                count=str(len(entries)),
                limit=str(profile.list_limit),
            )


def check_output(output: task_pb2.OutputSettings) -> None:
    """Raises Refusal INVALID_CONTAINER, CODEC_NOT_IN_CONTAINER, INVALID_VALUE."""
    _check_containers("output.single_containers", output.single_containers)
    _check_containers("output.mixed_containers", output.mixed_containers)
    if media_pb2.CONTAINER_OGG in output.mixed_containers:
        raise field_refusal(
            error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER,
            "output.mixed_containers",
            "OGG holds Opus untouched, and a mix is PCM; use MP3, WAV, AAC or M4A",
            container="OGG",
            codec="PCM_S16LE",
        )
    if output.HasField("segment_duration"):
        _check_segment_duration(output.segment_duration)
    if output.audio_bitrate_bps:
        _check_bitrate(output)
    _check_profile(output)
    if output.HasField("retention") and (problem := retention_problem(output.retention)):
        value = f"{output.retention.seconds}s"
        raise field_refusal(error_pb2.ERROR_REASON_INVALID_VALUE, "output.retention", problem, value=value)


def filled_output(output: task_pb2.OutputSettings, profile: Profile) -> task_pb2.OutputSettings:
    """`output` with the profile's defaults where it says nothing."""
    filled = task_pb2.OutputSettings()
    filled.CopyFrom(output)
    if not filled.single_containers:
        filled.single_containers.append(media_pb2.CONTAINER_MP3)
    if not filled.mixed_containers:
        filled.mixed_containers.append(media_pb2.CONTAINER_MP3)
    if not filled.HasField("segment_duration"):
        filled.segment_duration.FromNanoseconds(profile.segment_ns)
    if not filled.audio_bitrate_bps:
        filled.audio_bitrate_bps = _DEFAULT_BITRATE_BPS
    return filled


def _check_bitrate(output: task_pb2.OutputSettings) -> None:
    named, bitrate_bps = {*output.single_containers, *output.mixed_containers}, output.audio_bitrate_bps
    is_aac_alone = bool(named & _AAC_CONTAINERS) and media_pb2.CONTAINER_MP3 not in named
    if is_aac_alone and bitrate_bps not in _AAC_BITRATES_BPS:
        problem = f"is no bit rate for AAC; use {min(_AAC_BITRATES_BPS)} to {max(_AAC_BITRATES_BPS)}"
    elif not is_aac_alone and bitrate_bps not in BITRATES_BPS:
        problem = f"is no bit rate of MPEG-1 layer III; use one of {', '.join(map(str, BITRATES_BPS))}"
    else:
        return
    raise field_refusal(
        error_pb2.ERROR_REASON_INVALID_VALUE,
        "output.audio_bitrate_bps",
        f"{bitrate_bps} {problem}",
        value=str(bitrate_bps),
    )


def _check_profile(output: task_pb2.OutputSettings) -> None:
    for field, value, allowed in (
        ("audio_sample_rate_hz", output.audio_sample_rate_hz, _RATES_HZ),
        ("audio_channels", output.audio_channels, (1, 2)),
    ):
        if value and value not in allowed:
            raise field_refusal(
                error_pb2.ERROR_REASON_INVALID_VALUE,
                f"output.{field}",
                f"{value} can't be written; use one of {', '.join(map(str, allowed))}",
                value=str(value),
            )


def _check_segment_duration(duration: duration_pb2.Duration) -> None:
    # Not by the message's own conversions: they raise for what is no duration.
    length_ns = duration.seconds * _SECOND_NS + duration.nanos
    if abs(duration.nanos) >= _SECOND_NS or not _SHORTEST_SEGMENT_NS <= length_ns <= _LONGEST_SEGMENT_NS:
        shown = f"{length_ns / _SECOND_NS:.9g}s"
        raise field_refusal(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "output.segment_duration",
            f"{shown} is not between 1s and 24h",
            value=shown,
        )


def _check_containers(field: str, containers: Sequence[media_pb2.Container.ValueType]) -> None:
    seen: Collection[int] = set()
    for index, container in enumerate(containers):
        if container not in _CONTAINERS:
            raise field_refusal(
                error_pb2.ERROR_REASON_INVALID_CONTAINER,
                f"{field}[{index}]",
                f"{container} is no container; use MP3 (1), OGG (2), WAV (3), AAC (4) or M4A (5)",
                value=str(container),
            )
        if container in seen:
            raise field_refusal(
                error_pb2.ERROR_REASON_INVALID_CONTAINER,
                f"{field}[{index}]",
                f"{media_pb2.Container.Name(container)} stands twice; name each container once",
                value=str(container),
            )
        seen = {*seen, container}
