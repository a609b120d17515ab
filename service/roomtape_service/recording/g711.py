"""G.711: a byte for each sample, by the µ-law or the A-law (ITU-T G.711, tables 1 and 2)."""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["A_LAW", "G711_RATE", "MU_LAW", "expand"]

G711_RATE: Final = 8_000

Law = npt.NDArray[np.int16]


def _mu_law() -> Law:
    code = ~np.arange(256)
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law() -> Law:
    code = np.arange(256) ^ 0x55
    segment, step = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = np.where(segment == 0, step + 8, step + 0x108 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


MU_LAW: Final = _mu_law()
"""By code: the sample at 16 bits."""
A_LAW: Final = _a_law()
"""As `MU_LAW`."""


def expand(law: Law, payload: bytes) -> bytes:
    """The 16-bit samples of a payload."""
    return law[np.frombuffer(payload, np.uint8)].tobytes()
