"""Occurrences of a prefix in a file, and text that only resembles one."""

from __future__ import annotations

import pytest

from lamella.builder.files.prefix_pattern import pattern, shortest


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"/srv/env", True),
        (b"/srv/env/lib", True),
        (b'prefix="/srv/env"', True),
        (b"#!/srv/env/bin/python", True),
        (b"-L/srv/env/lib -I/srv/env/include", True),
        (b"file:///srv/env/x", True),
        (b"a:/srv/env:b", True),
        (b"\0/srv/env\0", True),
        (b"'./srv/env/lib'", True),
        (b"/srv/env2", False),
        (b"/srv/env.old", False),
        (b"/srv/env-2/x", False),
        (b"/srv/envs/x", False),
        ("/srv/envé".encode(), False),
        (b"/mnt/srv/env/x", False),
        (b"~/srv/env", False),
        (b"../srv/env", False),
    ],
)
def test_a_match_is_a_whole_path(text: bytes, found: bool) -> None:
    assert bool(pattern((b"/srv/env",)).search(text)) is found


def test_the_longest_of_nested_prefixes_matches() -> None:
    match = pattern((b"/a", b"/a/b")).search(b"x=/a/b/c")
    assert match
    assert match[0] == b"/a/b"


def test_a_file_without_the_shortest_prefixes_has_none_of_the_others() -> None:
    assert shortest((b"/a/b", b"/a", b"/c", b"/a/d")) == (b"/a", b"/c")
