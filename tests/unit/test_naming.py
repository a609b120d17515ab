"""Object keys: golden names, and what must hold for every legal id."""

import re
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roomtape.v1 import media_pb2
from roomtape_service.rules.naming import MAX_KEY_BYTES, escape_id, mixed_key, numbered, single_key

MP3 = media_pb2.CONTAINER_MP3
WAV = media_pb2.CONTAINER_WAV

# GME's own callback sample: 2023-02-09 16:16:45 in UTC+8.
START_NS = 1_675_930_605_000_000_000


def test_names_are_those_of_the_vendor() -> None:
    assert (
        single_key("", "3400352518", "1987", "1145", START_NS, 0, MP3)
        == "3400352518_1987_1145/2023-02-09-16-16-45_0_audio.mp3"
    )
    assert (
        mixed_key("", "3400352518", "1987", "446946705284000000", START_NS, 7, WAV)
        == "3400352518_1987/446946705284000000_2023-02-09-16-16-45_7_audio.wav"
    )


def test_a_prefix_gets_one_slash() -> None:
    assert single_key("a/b", "app", "r", "u", START_NS, 0, MP3).startswith("a/b/app_r_u/")
    assert single_key("a/b/", "app", "r", "u", START_NS, 0, MP3).startswith("a/b/app_r_u/")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("room-1.b", "room-1.b"),
        ("..", "~2E."),
        (".hidden", "~2Ehidden"),
        ("a/b", "a~2Fb"),
        ("a~b", "a~7Eb"),
        ("\x00\n", "~00~0A"),
        ("🎙", "~F0~9F~8E~99"),
        ("user_1", "user_1"),
    ],
)
def test_escapes(text: str, escaped: str) -> None:
    assert escape_id(text) == escaped


def test_a_room_with_an_underscore_is_not_a_room_and_a_user() -> None:
    keys = {
        single_key("", "app", "a_b", "c", START_NS, 0, MP3),
        single_key("", "app", "a", "b_c", START_NS, 0, MP3),
        single_key("", "app", "a~5Fb", "c", START_NS, 0, MP3),
    }
    assert len(keys) == 3


def test_numbers_stand_before_the_extension() -> None:
    key = "p.q/app_r_u/2023-02-09-16-16-45_0_audio.mp3"
    assert numbered(key, 1) == key
    assert numbered(key, 2) == "p.q/app_r_u/2023-02-09-16-16-45_0_audio-2.mp3"
    assert numbered(key, 30) == "p.q/app_r_u/2023-02-09-16-16-45_0_audio-30.mp3"


def _utf8_at_most(limit: int) -> st.SearchStrategy[str]:
    alphabet = st.one_of(st.sampled_from("._-~/\\ \x00aZ05Fé🎙"), st.characters(exclude_categories=["Cs"]))
    return st.text(alphabet, min_size=1, max_size=limit).filter(lambda text: len(text.encode()) <= limit)


APP_IDS = st.text("abcXYZ019.-", min_size=1, max_size=64)
IDS = _utf8_at_most(128)


@dataclass(frozen=True)
class Name:
    """Everything that makes a file another file."""

    app_id: str
    room_id: str
    user_id: str | None
    segment_id: int

    def key(self, prefix: str = "") -> str:
        if self.user_id is None:
            return mixed_key(prefix, self.app_id, self.room_id, "1" * 19, START_NS, self.segment_id, MP3)
        return single_key(prefix, self.app_id, self.room_id, self.user_id, START_NS, self.segment_id, MP3)


NAMES = st.builds(Name, APP_IDS, IDS, st.none() | IDS, st.integers(0, 2**31 - 1))


@given(NAMES, NAMES)
@example(Name("a", "b_c", None, 0), Name("a", "b", "c", 0))
@example(Name("a", "r" * 128, "u" * 128, 0), Name("a", "r" * 128, "u" * 127, 0))
@example(Name("a", "🎙" * 32, "🎙" * 32, 0), Name("a", "🎙" * 32, "🎙" * 31, 0))
def test_different_files_have_different_keys(one: Name, other: Name) -> None:
    assert (one.key() == other.key()) == (one == other)


@given(NAMES)
@example(Name("..", "..", "..", 0))
@example(Name("." * 64, "🎙" * 32, "🎙" * 32, 2**31 - 1))
def test_no_key_leaves_its_folder(name: Name) -> None:
    key = numbered(name.key("p" * 512), 100_000)
    assert len(key.encode()) <= MAX_KEY_BYTES
    prefix, folder, file = key.split("/")
    assert prefix == "p" * 512
    assert re.fullmatch(r"[A-Za-z0-9~-][A-Za-z0-9._~-]*", folder)
    assert len(folder) <= 255
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file)
    assert len(file) <= 255
