"""Which format is which."""

from collections.abc import Mapping

from roomtape.v1 import webhook_pb2
from roomtape_service.webhooks.formats.format import Format
from roomtape_service.webhooks.formats.gme import GmeFormat
from roomtape_service.webhooks.formats.roomtape import RoomtapeFormat
from roomtape_service.webhooks.formats.trtc import TrtcFormat
from roomtape_service.webhooks.formats.trtc_classic import TrtcClassicFormat
from roomtape_service.webhooks.formats.volc import VolcFormat

__all__ = ["FORMATS", "format_of"]

FORMATS: Mapping[webhook_pb2.WebhookFormat.ValueType, Format] = {
    webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE: RoomtapeFormat(),
    webhook_pb2.WEBHOOK_FORMAT_GME: GmeFormat(),
    webhook_pb2.WEBHOOK_FORMAT_TRTC: TrtcFormat(),
    webhook_pb2.WEBHOOK_FORMAT_TRTC_CLASSIC: TrtcClassicFormat(),
    webhook_pb2.WEBHOOK_FORMAT_VOLC: VolcFormat(),
}


def format_of(kind: webhook_pb2.WebhookFormat.ValueType) -> Format:
    """The format of a webhook; `kind` is one that is stored, so not UNSPECIFIED."""
    return FORMATS[kind]
