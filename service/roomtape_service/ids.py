"""Ids that the server chooses."""

import itertools
import secrets
from typing import Protocol

__all__ = ["CountedIds", "Ids", "RandomIds"]

_TASK_ID_BITS = 63


class Ids(Protocol):
    """Where components get new ids from."""

    def number(self) -> str:
        """A new positive 64-bit number as decimal digits."""
        ...

    def token(self) -> str:
        """A new string of 20 lower-case hexadecimal digits."""
        ...


class RandomIds:
    """Ids that can't be guessed, and collide only by a chance that does not matter."""

    def number(self) -> str:
        # The top bit of the 63 is set, so that all ids have 19 digits and sort alike everywhere.
        return str(secrets.randbits(_TASK_ID_BITS - 1) | 1 << (_TASK_ID_BITS - 1))

    def token(self) -> str:
        return secrets.token_hex(10)


class CountedIds:
    """1, 2, 3 …: the same ids in every run of a test."""

    def __init__(self) -> None:
        self._counter = itertools.count(1)

    def number(self) -> str:
        return str(next(self._counter))

    def token(self) -> str:
        return f"{next(self._counter):020x}"
