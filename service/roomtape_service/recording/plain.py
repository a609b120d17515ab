"""Frozen dataclasses to and from the plain values that JSON holds.

Supported: int, float, bool, str, enums of strings, tuples, mappings with str or int keys, nested
dataclasses, and any of them or None. What does not fit its type is refused with the path to it.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["PlainDataError", "from_plain", "to_plain"]

T = TypeVar("T", bound="DataclassInstance")


class PlainDataError(ValueError):
    """A value that does not fit the type it is read as."""


def to_plain(value: object) -> object:
    """`value` as dicts, lists and scalars; mappings' keys become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], data: object) -> T:
    """An instance of the dataclass `kind`. Raises PlainDataError; unknown fields are refused, absent ones
    take their defaults."""
    return cast(T, _reader(kind)(data, kind.__name__))


_Reader = Callable[[object, str], object]


@functools.cache
def _reader(kind: object) -> _Reader:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass_reader(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum_reader(kind)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional_reader(_reader(next(arm for arm in get_args(kind) if arm is not types.NoneType)))
    if origin is tuple:
        return _tuple_reader(_reader(get_args(kind)[0]))
    if origin is not None and issubclass(origin, Mapping):
        key, item = get_args(kind)
        return _mapping_reader(key is int, _reader(item))
    return _scalar_reader(cast(type, kind))


def _dataclass_reader(kind: type["DataclassInstance"]) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}

    def read(data: object, path: str) -> object:
        if not isinstance(data, dict):
            raise PlainDataError(f"{path}: an object is expected")
        if unknown := data.keys() - readers.keys():
            raise PlainDataError(f"{path}: unknown fields {sorted(unknown)}")
        values = {name: readers[name](item, f"{path}.{name}") for name, item in data.items()}
        try:
            return kind(**values)
        except TypeError as error:
            raise PlainDataError(f"{path}: {error}") from None

    return read


def _enum_reader(kind: type[StrEnum]) -> _Reader:
    def read(data: object, path: str) -> object:
        try:
            return kind(cast(str, data))
        except ValueError as error:
            raise PlainDataError(f"{path}: {error}") from None

    return read


def _optional_reader(inner: _Reader) -> _Reader:
    def read(data: object, path: str) -> object:
        return None if data is None else inner(data, path)

    return read


def _tuple_reader(inner: _Reader) -> _Reader:
    def read(data: object, path: str) -> object:
        if not isinstance(data, list):
            raise PlainDataError(f"{path}: a list is expected")
        return tuple(inner(item, f"{path}[{index}]") for index, item in enumerate(data))

    return read


def _mapping_reader(int_keys: bool, inner: _Reader) -> _Reader:
    def read(data: object, path: str) -> object:
        if not isinstance(data, dict):
            raise PlainDataError(f"{path}: an object is expected")
        try:
            return {
                (int(key) if int_keys else key): inner(item, f"{path}.{key}") for key, item in data.items()
            }
        except ValueError as error:
            raise PlainDataError(f"{path}: {error}") from None

    return read


def _scalar_reader(kind: type) -> _Reader:
    def read(data: object, path: str) -> object:
        if type(data) is not kind:
            raise PlainDataError(f"{path}: {kind.__name__} is expected, not {data!r}")
        return data

    return read
