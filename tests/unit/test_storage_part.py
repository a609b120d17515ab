"""The part rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape_service.storage.part import MAX_OBJECT_BYTES, MAX_PARTS, PART_BYTES, parts_of
from roomtape_service.storage.vendors import VENDORS


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES])
def test_small_files_are_put_whole(size_bytes: int) -> None:
    assert parts_of(size_bytes) == ()


def test_one_byte_more_makes_two_parts() -> None:
    assert [(part.number, part.start, part.length) for part in parts_of(PART_BYTES + 1)] == [
        (1, 0, PART_BYTES),
        (2, PART_BYTES, 1),
    ]


@given(st.integers(PART_BYTES + 1, MAX_OBJECT_BYTES))
def test_parts_cover_the_file_within_every_vendors_limits(size_bytes: int) -> None:
    parts = parts_of(size_bytes)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.start for part in parts] == [n * parts[0].length for n in range(len(parts))]
    assert sum(part.length for part in parts) == size_bytes
    assert all(part.length == parts[0].length for part in parts[:-1])
    assert 0 < parts[-1].length <= parts[0].length
    assert len(parts) <= MAX_PARTS
    for vendor in VENDORS.values():
        assert vendor.min_part_bytes <= parts[0].length <= vendor.max_part_bytes
        assert len(parts) <= vendor.max_parts


def test_what_no_vendor_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="more than an object can have"):
        parts_of(MAX_OBJECT_BYTES + 1)
    assert all(vendor.max_object_bytes >= MAX_OBJECT_BYTES for vendor in VENDORS.values())
