"""What can be written into which container, and how the workers name it."""

from collections.abc import Iterable, Mapping

from roomtape.v1 import media_pb2
from roomtape_service.recording import protocol
from roomtape_service.recording.containers.table import pair
from roomtape_service.rooms.codecs import TRACK_CODECS

__all__ = ["CONTAINERS", "CONTAINER_CODECS", "CONTAINER_NUMBERS", "holds", "mix_holds", "writable"]

CONTAINERS: Mapping[media_pb2.Container.ValueType, protocol.Container] = {
    media_pb2.CONTAINER_MP3: protocol.Container.MP3,
    media_pb2.CONTAINER_OGG: protocol.Container.OGG,
    media_pb2.CONTAINER_WAV: protocol.Container.WAV,
    media_pb2.CONTAINER_AAC: protocol.Container.AAC,
    media_pb2.CONTAINER_M4A: protocol.Container.M4A,
}

CONTAINER_NUMBERS: Mapping[protocol.Container, media_pb2.Container.ValueType] = {
    container: number for number, container in CONTAINERS.items()
}

CONTAINER_CODECS: Mapping[protocol.Container, media_pb2.Codec.ValueType] = {
    protocol.Container.MP3: media_pb2.CODEC_MP3,
    protocol.Container.OGG: media_pb2.CODEC_OPUS,
    protocol.Container.WAV: media_pb2.CODEC_PCM_S16LE,
    protocol.Container.AAC: media_pb2.CODEC_AAC,
    protocol.Container.M4A: media_pb2.CODEC_AAC,
}


def holds(container: media_pb2.Container.ValueType, codec: media_pb2.Codec.ValueType) -> bool:
    """Whether a single recording of a track with `codec` can be written into `container`."""
    return pair(TRACK_CODECS[codec], CONTAINERS[container]) is not None


def mix_holds(container: media_pb2.Container.ValueType) -> bool:
    """Whether a mix, which is PCM, can be written into `container`."""
    return holds(container, media_pb2.CODEC_PCM_S16LE)


def writable(
    containers: Iterable[media_pb2.Container.ValueType], codec: media_pb2.Codec.ValueType
) -> tuple[protocol.Container, ...]:
    """Those of `containers` that can hold a track with `codec`, as workers name them."""
    return tuple(CONTAINERS[each] for each in containers if holds(each, codec))
