"""What all rows have: their folder, the material, and how long a window of measurement is."""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.material import Material

__all__ = ["Bench"]


@dataclass(frozen=True, slots=True)
class Bench:
    """One run."""

    folder: Path
    """Below it everything is written."""
    material: Material
    window_seconds: float
    """How long the CPU of a contestant is counted in each of its turns."""
