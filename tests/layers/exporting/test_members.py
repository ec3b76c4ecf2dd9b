from __future__ import annotations

import pytest

from lamella.layers.exporting.members import Filter, chosen

PATHS = ["bin/tool", "lib/a.pyx", "lib/b.py", "lib/deep/c.pyx", "lib/__pycache__/b.cpython-311.pyc"]


@pytest.mark.parametrize(
    ("filters", "left_out"),
    [
        ([], set()),
        ([("exclude", "*.pyx")], {"lib/a.pyx", "lib/deep/c.pyx"}),
        ([("exclude", "*.pyx"), ("include", "lib/deep/*")], {"lib/a.pyx"}),
        ([("include", "lib/deep/*"), ("exclude", "*.pyx")], {"lib/a.pyx", "lib/deep/c.pyx"}),
        ([("exclude", "*"), ("include", "bin/*"), ("exclude", "bin/t*")], set(PATHS)),
        ([("exclude", "LIB/*")], set()),
        ([("exclude", "lib/?.p[xy]*")], {"lib/a.pyx", "lib/b.py"}),
    ],
)
def test_patterns_apply_in_order_and_match_slashes(filters: list[Filter], left_out: set[str]) -> None:
    assert chosen(PATHS, filters, byte_code=True) == set(PATHS) - left_out


def test_no_pattern_brings_byte_code_back() -> None:
    assert chosen(PATHS, [("include", "*")], byte_code=False) == set(PATHS[:-1])
