"""Writes AAC into its containers; see `aac_files` for what they are."""

from roomtape_service.recording.containers.aac_files import AdtsFraming, Framing, M4aFraming, m4a_format
from roomtape_service.recording.containers.output import OutputFile
from roomtape_service.recording.containers.units import EncodedUnits, PassedUnits, Units
from roomtape_service.recording.vocabulary import Container

__all__ = ["AacWriter"]


class AacWriter:
    """See ContainerWriter."""

    def __init__(
        self, container: Container, path: str, rate: int, channels: int, bits_per_second: int | None
    ) -> None:
        """`bits_per_second` None: it takes packets, and passes them."""
        self.container = container
        self.file = OutputFile(path)
        passes = bits_per_second is None
        self._units: Units = (
            PassedUnits(rate, channels)
            if bits_per_second is None
            else EncodedUnits(rate, channels, bits_per_second)
        )
        self._framing: Framing = (
            M4aFraming(m4a_format(rate, channels, passes=passes))
            if container is Container.M4A
            else AdtsFraming(rate, channels)
        )

    @property
    def ready(self) -> int:
        """See ContainerWriter."""
        return self._units.ready

    def add_pcm(self, pcm: bytes) -> None:
        """See ContainerWriter."""
        self._units.add_pcm(pcm)

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """See ContainerWriter."""
        self._units.add_packet(packet, duration, samples)

    def add_silence(self, samples: int) -> None:
        """See ContainerWriter."""
        self._units.add_silence(samples)

    def cut(self, samples: int) -> int:
        """See ContainerWriter."""
        if data := self._framing.framed(self._units.take(samples)):
            self.file.append(data)
        return self.file.size

    def end(self) -> None:
        """See ContainerWriter."""
        self._units.end()
