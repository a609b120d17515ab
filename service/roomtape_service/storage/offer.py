"""What a server offers an application's storage beside what every server has."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from roomtape_service.storage.kinds import StoreKinds

__all__ = ["Offer"]


@dataclass(frozen=True, slots=True)
class Offer:
    """Made for one application and the moment of a check."""

    sources: Sequence[str] = ()
    """Credential sources that the application may use."""
    kinds: StoreKinds = field(default_factory=StoreKinds)
    """Kinds of stores that are installed."""
    now_ns: int = 0
    """UTC nanoseconds: what expired before can't work."""
