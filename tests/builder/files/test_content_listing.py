"""A listing of contents unpacks to the contents that were packed, and damage is not believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.files.content_listing import Listing, packed, unpacked
from lamella.builder.files.read import FileContent

_UNSIGNED = st.integers(0, (1 << 64) - 1)
_SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)
_DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
_CONTENT = st.builds(FileContent, _DIGEST, st.sampled_from(["", "text", "binary"]), st.text())
CONTENTS = st.dictionaries(st.tuples(_UNSIGNED, _UNSIGNED, _SIGNED, _SIGNED, _SIGNED), _CONTENT)


@given(CONTENTS)
def test_a_listing_gives_back_its_contents(contents: dict[tuple[int, int, int, int, int], FileContent]) -> None:
    assert unpacked(packed(contents)) == contents


@pytest.mark.parametrize(
    "damaged",
    [
        Listing(b"x" * 41, b"y" * 32, "{}"),
        Listing(b"x" * 40, b"y" * 64, "{}"),
        Listing(b"x" * 40, b"y" * 32, "{"),
        Listing(b"x" * 40, b"y" * 32, '{"1": ["text", ""]}'),
        Listing(b"x" * 40, b"y" * 32, '{"-1": ["text", ""]}'),
        Listing(b"x" * 40, b"y" * 32, '{"0": ["other", ""]}'),
        Listing(b"x" * 40, b"y" * 32, '{"0": ["text", 1]}'),
        Listing(b"x" * 40, b"y" * 32, '{"0": ["text"]}'),
    ],
)
def test_a_damaged_listing_is_refused(damaged: Listing) -> None:
    with pytest.raises(ValueError, match="damaged listing"):
        unpacked(damaged)
