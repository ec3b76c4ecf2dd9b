from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.content.prefix_rewrite import rewrite_binary, rewrite_text
from lamella.builder.errors import CannotBuild

PREFIXES = (b"/home/me/work/env", b"/srv/env")


def text(*chunks: bytes, prefixes: tuple[bytes, ...] = PREFIXES) -> bytes:
    return b"".join(rewrite_text(chunks, prefixes, b"/opt/env"))


def binary(*chunks: bytes, target: bytes = b"/opt/env", padded: bool = True) -> bytes:
    return b"".join(rewrite_binary(chunks, PREFIXES, target, name="lib/libx.so", padded=padded))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"prefix=/srv/env\n", b"prefix=/opt/env\n"),
        (b"-L/srv/env/lib -I/srv/env/include", b"-L/opt/env/lib -I/opt/env/include"),
        (b"file:///srv/env/x", b"file:///opt/env/x"),
        (b"/srv/env:/home/me/work/env/bin", b"/opt/env:/opt/env/bin"),
        (b"'/srv/env'", b"'/opt/env'"),
    ],
)
def test_a_prefix_in_text_becomes_the_image_prefix(before: bytes, after: bytes) -> None:
    assert text(before) == after


@pytest.mark.parametrize(
    "other", [b"/srv/env2", b"/srv/env-old/x", b"/srv/env.bak", b"/mnt/srv/env", b"/srv/environment"]
)
def test_a_longer_name_that_begins_or_ends_like_the_prefix_stays(other: bytes) -> None:
    assert text(b"a " + other + b" b") == b"a " + other + b" b"


@given(
    st.lists(
        st.sampled_from(
            [b"/srv/env", b"/srv", b"/env", b"/home/me", b"/work/env", b"/", b" ", b"x", b"\n", b"-L", b"."]
        )
    ).map(b"".join),
    st.lists(st.integers(1, 40)),
)
def test_where_a_text_is_cut_into_chunks_does_not_show(whole: bytes, cuts: list[int]) -> None:
    chunks, rest = [], whole
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert text(*chunks, rest) == text(whole)


@pytest.mark.parametrize("whole", [b"/mnt/srv/env/x", b"-L/srv/env/lib", b"/srv/env2", b"file:///srv/env", b"/srv/env"])
def test_each_cut_of_a_text_into_two_chunks_gives_the_same(whole: bytes) -> None:
    whole = whole.center(100)
    assert {text(whole[:cut], whole[cut:]) for cut in range(len(whole))} == {text(whole)}


def test_a_string_in_a_binary_keeps_its_length_and_ends_in_more_nuls() -> None:
    before = b"\x7fELF\0\0/home/me/work/env/lib\0next\0"
    after = binary(before)
    assert after == b"\x7fELF\0\0/opt/env/lib" + bytes(10) + b"next\0"
    assert len(after) == len(before)


def test_several_prefixes_in_one_string_of_a_binary_are_all_replaced() -> None:
    after = binary(b"\0/home/me/work/env/lib:/home/me/work/env/lib64\0end")
    assert after == (b"\0/opt/env/lib:/opt/env/lib64").ljust(46, b"\0") + b"\0end"


def test_a_string_grows_into_the_room_that_a_placeholder_left() -> None:
    before = b"\0/srv/env/lib" + bytes(30) + b"next\0"
    after = binary(before, target=b"/opt/environments/one")
    assert after == (b"\0/opt/environments/one/lib").ljust(len(before) - 5, b"\0") + b"next\0"


def test_a_string_that_grows_keeps_a_nul_at_its_end() -> None:
    target, longer = b"/opt/environments/one", len(b"/opt/environments/one") - len(b"/srv/env")
    assert binary(b"\0/srv/env/lib" + bytes(longer + 1) + b"next\0", target=target) == b"\0" + target + b"/lib\0next\0"
    with pytest.raises(CannotBuild, match="no room for /opt/environments/one"):
        binary(b"\0/srv/env/lib" + bytes(longer) + b"next\0", target=target)


def test_a_string_without_a_placeholder_does_not_grow() -> None:
    with pytest.raises(CannotBuild, match="no room for /opt/environments/one"):
        binary(b"\0/srv/env/lib" + bytes(30) + b"next\0", target=b"/opt/environments/one", padded=False)


def test_a_prefix_that_does_not_fit_a_binary_is_refused_by_the_files_name() -> None:
    with pytest.raises(CannotBuild, match=r"lib/libx\.so: no room for /opt/environments/one in a string of 12 bytes"):
        binary(b"\0/srv/env/lib\0\0\0next\0", target=b"/opt/environments/one")


@given(
    st.lists(
        st.sampled_from([b"/srv/env/lib", b"/srv/env", bytes(1), bytes(40), b"abc", b"/home/me/work/env:", b"\xff"])
    ).map(b"".join),
    st.lists(st.integers(1, 30)),
)
def test_where_a_binary_is_cut_into_chunks_does_not_show_and_its_length_stays(whole: bytes, cuts: list[int]) -> None:
    chunks, rest = [], whole
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert binary(*chunks, rest) == binary(whole)
    assert len(binary(whole)) == len(whole)
