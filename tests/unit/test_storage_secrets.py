"""Credentials at rest."""

import stat
from pathlib import Path

import pytest

from roomtape.v1 import storage_pb2
from roomtape_service.storage.secrets import (
    SecretBox,
    SecretKeyError,
    keep_secrets,
    load_or_create_key,
    strip_secrets,
)

SECRET = "s3cr3t/value+that=is-long"
TOKEN = "temporary-token"


def _settings(secret: str = SECRET, token: str = TOKEN) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        prefix="p",
        object_store=storage_pb2.ObjectStore(
            bucket="bucket",
            credentials=storage_pb2.StorageCredentials(
                access_key_id="AKID",
                secret_access_key=storage_pb2.Secret(value=secret),
                session_token=storage_pb2.Secret(value=token),
            ),
        ),
    )


def test_sealed_settings_hold_no_secret_and_open_again() -> None:
    box = SecretBox(bytes(32))
    sealed = box.seal("app", _settings())
    stored = sealed.SerializeToString()
    assert SECRET.encode() not in stored
    assert TOKEN.encode() not in stored
    opened = box.open("app", sealed)
    assert opened.object_store.credentials.secret_access_key.value == SECRET
    assert opened.object_store.credentials.session_token.value == TOKEN


def test_two_seals_of_one_secret_differ() -> None:
    box = SecretBox(bytes(32))
    assert box.seal("app", _settings()) != box.seal("app", _settings())


def test_another_key_application_or_field_opens_nothing() -> None:
    sealed = SecretBox(bytes(32)).seal("app", _settings())
    with pytest.raises(SecretKeyError):
        SecretBox(bytes(31) + b"\1").open("app", sealed)
    with pytest.raises(SecretKeyError):
        SecretBox(bytes(32)).open("other", sealed)
    credentials = sealed.object_store.credentials
    credentials.session_token.CopyFrom(credentials.secret_access_key)
    with pytest.raises(SecretKeyError):
        SecretBox(bytes(32)).open("app", sealed)


def test_disk_settings_pass_through() -> None:
    settings = storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="f"))
    box = SecretBox(bytes(32))
    assert box.seal("app", settings) == box.open("app", settings) == strip_secrets(settings) == settings


def test_replies_say_whether_and_not_what() -> None:
    settings = _settings()
    stripped = strip_secrets(settings)
    assert settings == _settings()
    credentials = stripped.object_store.credentials
    assert credentials.access_key_id == "AKID"
    assert (credentials.secret_access_key.value, credentials.secret_access_key.is_set) == ("", True)
    assert (credentials.session_token.value, credentials.session_token.is_set) == ("", True)
    assert SECRET not in str(stripped)


def test_what_a_reply_showed_may_be_sent_back() -> None:
    assert keep_secrets(strip_secrets(_settings()), _settings()) == _with_flags(_settings())


def test_a_new_key_needs_its_own_secret() -> None:
    wanted = strip_secrets(_settings())
    wanted.object_store.credentials.access_key_id = "OTHER"
    kept = keep_secrets(wanted, _settings())
    assert kept.object_store.credentials.secret_access_key.value == ""
    assert kept.object_store.credentials.session_token.value == ""


def test_a_token_that_is_left_out_is_taken_away() -> None:
    wanted = strip_secrets(_settings())
    wanted.object_store.credentials.ClearField("session_token")
    kept = keep_secrets(wanted, _settings())
    assert kept.object_store.credentials.secret_access_key.value == SECRET
    assert kept.object_store.credentials.session_token.value == ""


def test_the_key_file_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    key = load_or_create_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == ["secret.key"]


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    load_or_create_key(path)
    path.chmod(0o644)
    with pytest.raises(SecretKeyError, match="chmod 600"):
        load_or_create_key(path)


@pytest.mark.parametrize("content", [b"", b"not base 64!", b"c2hvcnQ=", b"\xff\xfe"])
def test_a_damaged_key_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretKeyError, match=r"secret\.key"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_derived_keys_differ() -> None:
    box = SecretBox(bytes(32))
    assert box.derived_key("playback") == box.derived_key("playback")
    assert len({bytes(32), box.derived_key("playback"), box.derived_key("other")}) == 3


def _with_flags(settings: storage_pb2.StorageSettings) -> storage_pb2.StorageSettings:
    settings.object_store.credentials.secret_access_key.is_set = True
    settings.object_store.credentials.session_token.is_set = True
    return settings


def test_the_secrets_of_a_second_store_and_of_a_custom_one_are_kept_apart() -> None:
    settings = _settings()
    settings.secondary.custom.kind = "tapes"
    settings.secondary.custom.options["shelf"] = "1"
    settings.secondary.custom.secrets["code"].value = "0815"
    box = SecretBox(bytes(32))
    sealed = box.seal("app", settings)
    assert b"0815" not in sealed.SerializeToString()
    assert box.open("app", sealed).secondary.custom.secrets["code"].value == "0815"
    moved = storage_pb2.StorageSettings(custom=sealed.secondary.custom)
    with pytest.raises(SecretKeyError):
        box.open("app", moved)
    shown = strip_secrets(settings)
    assert (shown.secondary.custom.secrets["code"].value, shown.secondary.custom.secrets["code"].is_set) == (
        "",
        True,
    )
    assert keep_secrets(shown, settings).secondary.custom.secrets["code"].value == "0815"
    shown.secondary.custom.options["shelf"] = "2"
    assert keep_secrets(shown, settings).secondary.custom.secrets["code"].value == ""
    named = strip_secrets(_settings())
    named.object_store.credentials.Clear()
    named.object_store.credentials.source = "pod"
    assert keep_secrets(named, _settings()) == named
