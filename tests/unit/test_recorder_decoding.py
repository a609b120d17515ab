"""Payloads become the samples that they stand for, as FFmpeg has them, or are told to be none."""

import numpy as np
import pytest

from roomtape_service.recording.aac import silent_unit
from roomtape_service.recording.decoding import payload_decoder, samples_in
from roomtape_service.recording.g711 import A_LAW, MU_LAW
from roomtape_service.recording.opus import CorruptPacketError
from roomtape_service.recording.vocabulary import TrackCodec
from tests.support.audio import a_law, aac_decode, aac_units, mu_law, noise, tone

UNIT = 1024


@pytest.mark.parametrize(("codec", "law", "encode"), [("PCMU", MU_LAW, mu_law), ("PCMA", A_LAW, a_law)])
def test_g711_is_what_ffmpeg_makes_of_it(codec: str, law: np.ndarray, encode: object) -> None:
    assert callable(encode)
    # Each of the 256 samples that there are is encoded to what decodes to it.
    assert set(np.frombuffer(encode(law), np.uint8)) >= set(range(256)) - {127}
    np.testing.assert_array_equal(law[np.frombuffer(encode(law), np.uint8)], law)
    signal = noise(0.5, 8_000, channels=2)
    payload = encode(signal)
    [pcm] = payload_decoder(TrackCodec(codec), 8_000, 2).decode([payload], [4_000])
    assert pcm is not None
    heard = np.frombuffer(pcm, np.int16).reshape(-1, 2).astype(np.int32)
    assert np.abs(heard - signal).max() < 300
    assert samples_in(TrackCodec(codec), payload, 8_000, 2) == 4_000


@pytest.mark.parametrize("codec", [TrackCodec.PCMU, TrackCodec.PCMA])
@pytest.mark.parametrize(("size", "channels"), [(0, 1), (161, 2), (8_001, 1), (16_002, 2)])
def test_g711_of_odd_size_or_more_than_a_second_is_refused(
    codec: TrackCodec, size: int, channels: int
) -> None:
    with pytest.raises(CorruptPacketError, match=r"G\.711"):
        samples_in(codec, bytes(size), 8_000, channels)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2), (8_000, 1)])
def test_aac_is_decoded_as_one_stream(rate: int, channels: int) -> None:
    units = aac_units(tone(440, 0.5, rate, channels=channels), rate)
    decoder = payload_decoder(TrackCodec.AAC, rate, channels)
    sizes = [samples_in(TrackCodec.AAC, unit, rate, channels) for unit in units]
    assert set(sizes) == {UNIT}
    decoded = decoder.decode(units[:3], sizes[:3]) + decoder.decode(units[3:], sizes[3:])
    heard = np.frombuffer(b"".join(each or b"" for each in decoded), np.int16)
    np.testing.assert_array_equal(heard, aac_decode(units, rate, channels).reshape(-1))


def test_aac_that_is_broken_costs_itself_and_lets_the_next_fade_in() -> None:
    units = aac_units(tone(440, 0.5))
    decoder = payload_decoder(TrackCodec.AAC, 48_000, 1)
    broken = [*units[:5], b"\x1f" * 300, *units[6:]]
    decoded = decoder.decode(broken, [UNIT] * len(broken))
    assert [index for index, each in enumerate(decoded) if each is None] == [5]
    whole = aac_decode(units)
    for index in (*range(5), *range(7, len(units))):
        heard = np.frombuffer(decoded[index] or b"", np.int16)
        # Decoders put noise of their own where the encoder left it out.
        assert np.abs(heard - whole[index * UNIT : (index + 1) * UNIT].astype(np.int32)).max() < 50


def test_a_unit_of_other_channels_is_broken() -> None:
    decoder = payload_decoder(TrackCodec.AAC, 48_000, 2)
    # Two elements of one channel each: legal, and not what a track of two channels sends.
    assert decoder.decode([silent_unit(1)], [UNIT]) == [None]
