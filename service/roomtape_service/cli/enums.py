"""Names of the contract's enums as people write them: `RECORD_MODE_SINGLE_AND_MIXED` is `single-and-mixed`."""

import re

from google.protobuf.descriptor import EnumDescriptor

__all__ = ["label", "names", "number"]

_WORD_STARTS = re.compile(r"(?<!^)(?=[A-Z])")


def names(enum: EnumDescriptor) -> list[str]:
    """The names of all values that mean something, in their order."""
    return [_short(enum, value.name) for value in enum.values if value.number]


def number(enum: EnumDescriptor, name: str) -> int:
    """The value with the name; upper case and `_` are fine too. Raises ValueError for a name that is none."""
    wanted = name.lower().replace("_", "-")
    for value in enum.values:
        if value.number and _short(enum, value.name) == wanted:
            return int(value.number)
    raise ValueError(f"{name!r} is none of {', '.join(names(enum))}")


def label(enum: EnumDescriptor, value: int) -> str:
    """The name of a value; of one that is newer than this program its number, of 0 nothing."""
    if not value:
        return ""
    known = enum.values_by_number.get(value)
    return str(value) if known is None else _short(enum, known.name)


def _short(enum: EnumDescriptor, name: str) -> str:
    prefix = _WORD_STARTS.sub("_", enum.name).upper() + "_"
    return name.removeprefix(prefix).lower().replace("_", "-")
