"""What the database knows of segments that lie on the spool."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from roomtape_service.recording.vocabulary import Container

__all__ = ["SpoolRecords"]


@dataclass(frozen=True, slots=True)
class SpoolRecords:
    """Segments are named by recording and number."""

    begun: AbstractSet[tuple[str, int]] = frozenset()
    """Segments that were announced: they can't be taken for one of which nobody was told."""
    settled: AbstractSet[tuple[str, int, Container]] = frozenset()
    """Files that are in a store, or were given up: the spool need not have them."""
    complete: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Files that are complete, and not settled, by name: size and path. They need no journal any more."""
