"""Hashes of RECORD, decoded all at once, are those that are decoded one by one."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamella.builder.installed.record import recorded

if TYPE_CHECKING:
    from pathlib import Path

_CHARACTERS = "ABCxyz059-_"
HASHES = st.lists(
    st.one_of(
        st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256={base64.urlsafe_b64encode(raw).decode()[:43]}"),
        # The last character may have two bits that mean nothing.
        st.text(_CHARACTERS, min_size=43, max_size=43).map("sha256={}".format),
        st.sampled_from(["", "md5=abc", "sha256=short", f"sha256={'A' * 43}", f"sha256={'A' * 42}D"]),
    ),
    max_size=8,
)


def one_by_one(text: str) -> str:
    if not text.startswith("sha256=") or len(text) != 50:
        return ""
    raw = base64.urlsafe_b64decode(text[7:] + "=")
    return raw.hex() if any(raw) else ""


@given(HASHES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_hash_is_decoded(tmp_path: Path, hashes: list[str]) -> None:
    (tmp_path / "RECORD").write_text("".join(f"file{n},{text},1\n" for n, text in enumerate(hashes)))
    expected = {f"site/file{n}": one_by_one(text) for n, text in enumerate(hashes)}
    assert recorded(str(tmp_path), "site", ()) == expected


@pytest.mark.parametrize("damage", ["é" * 43, "*" * 43])
def test_hashes_beside_a_damaged_one_are_not_used(tmp_path: Path, damage: str) -> None:
    with pytest.raises((binascii.Error, ValueError)):
        base64.b64decode(damage + "=", validate=True)
    right = base64.urlsafe_b64encode(b"x" * 32).decode()[:43]
    (tmp_path / "RECORD").write_text(f"one,sha256={right},1\ntwo,sha256={damage},1\n")
    assert recorded(str(tmp_path), "site", ()) == {"site/one": "", "site/two": ""}
