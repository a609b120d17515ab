"""A Publish stream by hand: every message as the case wants it, with nothing sent again."""

from collections.abc import Sequence
from typing import Self

from grpc import aio

from roomtape.v1 import ingest_pb2
from tests.integration.bad_input.content import FRAME_NS
from tests.integration.bad_input.refusals import Refused, read_refusal
from tests.integration.bad_input.witness import START_NS, TRACK

__all__ = ["RawPublish", "batch", "frame", "frames", "opening"]

_PATH = "/roomtape.v1.IngestService/Publish"
_TIMEOUT_SECONDS = 15.0

Message = ingest_pb2.PublishRequest | bytes


def opening(
    room_id: str,
    user_id: str,
    tracks: Sequence[ingest_pb2.TrackOffer],
    *,
    app_id: str = "app",
    session: str = "",
) -> ingest_pb2.PublishOpen:
    """An opening that is good in every room."""
    request = ingest_pb2.PublishOpen(
        app_id=app_id,
        room_id=room_id,
        user_id=user_id,
        publish_session_id=session or f"of-{user_id}",
        tracks=tracks,
    )
    request.sent_time.FromNanoseconds(START_NS)
    return request


def frame(sequence: int, payload: bytes, *, at: int | None = None) -> ingest_pb2.Frame:
    """A frame of 20 ms in its place: `at` frames after the first; default: as its sequence says."""
    place = sequence - 1 if at is None else at
    made = ingest_pb2.Frame(sequence=sequence, payload=payload)
    made.media_time.FromNanoseconds(place * FRAME_NS)
    made.capture_time.FromNanoseconds(START_NS + place * FRAME_NS)
    return made


def frames(payloads: Sequence[bytes], first: int = 1) -> list[ingest_pb2.Frame]:
    """Frames that follow each other."""
    return [frame(first + index, payload) for index, payload in enumerate(payloads)]


def batch(
    made: Sequence[ingest_pb2.Frame], track_id: str = TRACK, *, sent_ns: int | None = None
) -> ingest_pb2.PublishRequest:
    """A message with these frames."""
    request = ingest_pb2.PublishRequest(frames=ingest_pb2.FrameBatch(track_id=track_id, frames=made))
    if sent_ns is not None:
        request.frames.sent_time.FromNanoseconds(sent_ns)
    return request


class RawPublish:
    """One stream. What it acknowledges and rejects is kept."""

    def __init__(self, channel: aio.Channel) -> None:
        self.acknowledged: dict[str, int] = {}
        self.rejected: list[ingest_pb2.FramesRejected] = []
        publish: aio.StreamStreamMultiCallable[Message, ingest_pb2.PublishResponse]
        publish = channel.stream_stream(
            _PATH,
            request_serializer=lambda message: (
                message if isinstance(message, bytes) else message.SerializeToString()
            ),
            response_deserializer=ingest_pb2.PublishResponse.FromString,
        )
        self._call = publish(timeout=_TIMEOUT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._call.cancel()

    async def open(self, request: ingest_pb2.PublishOpen) -> ingest_pb2.PublishOpened:
        """Opens the session. Raises AioRpcError."""
        await self.send(ingest_pb2.PublishRequest(open=request))
        response = await self._read()
        assert response is not None
        assert response.WhichOneof("message") == "opened", response
        return response.opened

    async def send(self, *messages: Message) -> None:
        """Sends messages; what comes after the server's last word goes nowhere."""
        for message in messages:
            if self._call.done():
                return
            await self._call.write(message)

    async def until_acknowledged(self, sequence: int, track_id: str = TRACK) -> None:
        """Reads until all up to `sequence` is safe. Raises AioRpcError."""
        while self.acknowledged.get(track_id, 0) < sequence:
            assert await self._read() is not None

    async def until_rejected(self, count: int) -> None:
        """Reads until so many messages told of rejected frames. Raises AioRpcError."""
        while len(self.rejected) < count:
            assert await self._read() is not None

    async def close(self) -> ingest_pb2.Goodbye:
        """Leaves, and reads to the goodbye. Raises AioRpcError."""
        await self.send(ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose()))
        return await self.goodbye()

    async def goodbye(self) -> ingest_pb2.Goodbye:
        """Reads to the goodbye. Raises AioRpcError."""
        while (response := await self._read()) is not None:
            if response.WhichOneof("message") == "goodbye":
                return response.goodbye
        raise AssertionError("the stream ended without a goodbye")

    async def refusal(self) -> Refused:
        """Reads to the refusal that ends the stream."""
        return read_refusal(await self.error())

    async def error(self) -> aio.AioRpcError:
        """Reads to the error that ends the stream."""
        try:
            while await self._read() is not None:
                pass
        except aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended well")

    async def _read(self) -> ingest_pb2.PublishResponse | None:
        response = await self._call.read()
        if not isinstance(response, ingest_pb2.PublishResponse):
            return None
        match response.WhichOneof("message"):
            case "acknowledgement":
                self._acknowledge(response.acknowledgement)
            case "opened":
                for each in response.opened.acknowledgements:
                    self._acknowledge(each)
            case "goodbye":
                for each in response.goodbye.acknowledgements:
                    self._acknowledge(each)
            case "frames_rejected":
                self.rejected.append(response.frames_rejected)
        return response

    def _acknowledge(self, acknowledgement: ingest_pb2.Acknowledgement) -> None:
        self.acknowledged[acknowledgement.track_id] = acknowledgement.sequence
