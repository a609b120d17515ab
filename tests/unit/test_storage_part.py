"""The part rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape_service.storage.part import (
    MAX_OBJECT_BYTES,
    MAX_PARTS,
    PART_BYTES,
    SETTLED_BYTES,
    part_bytes_for,
    parts_of,
    settled_parts,
)
from roomtape_service.storage.vendors import VENDORS


def test_one_byte_more_makes_two_parts() -> None:
    assert [(part.number, part.start, part.length) for part in parts_of(PART_BYTES + 1, PART_BYTES)] == [
        (1, 0, PART_BYTES),
        (2, PART_BYTES, 1),
    ]


@given(st.integers(PART_BYTES + 1, MAX_OBJECT_BYTES))
def test_parts_cover_the_file_within_every_vendors_limits(size_bytes: int) -> None:
    parts = parts_of(size_bytes, part_bytes_for(size_bytes))
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
        part_bytes_for(MAX_OBJECT_BYTES + 1)
    assert all(vendor.max_object_bytes >= MAX_OBJECT_BYTES for vendor in VENDORS.values())


@pytest.mark.parametrize(
    ("size_bytes", "count"),
    [
        (0, 0),
        (PART_BYTES, 0),
        (PART_BYTES + SETTLED_BYTES - 1, 0),
        (PART_BYTES + SETTLED_BYTES, 1),
        (5 * PART_BYTES + SETTLED_BYTES, 5),
    ],
)
def test_what_may_be_written_again_is_not_final(size_bytes: int, count: int) -> None:
    assert settled_parts(size_bytes, PART_BYTES) == count
