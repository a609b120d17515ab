"""Codecs of tracks as workers name them."""

from collections.abc import Mapping

from roomtape.v1 import media_pb2
from roomtape_service.recording import protocol

__all__ = ["TRACK_CODECS"]

TRACK_CODECS: Mapping[media_pb2.Codec.ValueType, protocol.TrackCodec] = {
    media_pb2.CODEC_OPUS: protocol.TrackCodec.OPUS,
    media_pb2.CODEC_PCM_S16LE: protocol.TrackCodec.PCM_S16LE,
    media_pb2.CODEC_AAC: protocol.TrackCodec.AAC,
    media_pb2.CODEC_PCMU: protocol.TrackCodec.PCMU,
    media_pb2.CODEC_PCMA: protocol.TrackCodec.PCMA,
}
