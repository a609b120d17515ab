"""What tests of single recordings have in common: one publisher, who is recorded."""

from roomtape.v1 import ingest_pb2
from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, RoomClock
from tests.support.audio import Samples, ffmpeg_decode
from tests.support.recorder import EPOCH_NS, Publisher, RecorderNode

__all__ = ["begin", "decode", "end", "path_of", "pcm_frames", "send"]


def begin(
    node: RecorderNode,
    publisher: Publisher,
    *orders: protocol.RecordingStart,
    clock: RoomClock = RoomClock.MEDIA,
) -> None:
    """Opens the room and the publisher's track, and records it."""
    node.tell(protocol.RoomOpen(1, clock, EPOCH_NS), publisher.open())
    for each in orders:
        node.tell(each, protocol.RecordingTracks(each.recording_id, (publisher.handle,)))


def pcm_frames(publisher: Publisher, signal: Samples) -> list[ingest_pb2.Frame]:
    size = publisher.rate // 50
    return [publisher.frame(signal[at : at + size].tobytes(), size) for at in range(0, len(signal), size)]


def send(node: RecorderNode, publisher: Publisher, frames: list[ingest_pb2.Frame], size: int = 5) -> None:
    for at in range(0, len(frames), size):
        node.write(publisher.message(publisher.batch(frames[at : at + size])))


async def end(
    node: RecorderNode, publisher: Publisher, recording_id: str = "r"
) -> list[protocol.SegmentCompleted]:
    node.tell(protocol.TrackClose(publisher.handle, publisher.capture_ns()))
    return await node.stop(recording_id, publisher.capture_ns())


def path_of(segment: protocol.SegmentCompleted, container: Container) -> str:
    [file] = [file for file in segment.files if file.container is container]
    return file.path


def decode(segment: protocol.SegmentCompleted, container: Container, channels: int = 1) -> Samples:
    """What was recorded into a segment's file, by ffmpeg."""
    [file] = [file for file in segment.files if file.container is container]
    heard = ffmpeg_decode(file.path, channels)
    if container is not Container.AAC:
        return heard
    # The file itself does not say what of it was not recorded.
    return heard[file.encoder_delay : file.encoder_delay + file.sample_count]
