"""One thing that must hold, and whether it does."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` must hold; `facts` are what was found."""

    what: str
    ok: bool
    facts: str
