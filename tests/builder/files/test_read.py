from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.files.read import same

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_made_by_another_environment_does_not_count_as_a_change(tmp_path: Path) -> None:
    """uv links every environment's files to its cache's: each install changes the inodes of all the others."""
    file = tmp_path / "a"
    file.write_text("a")
    before = os.stat(file)
    os.link(file, tmp_path / "b")
    assert same(before, os.stat(file))


def test_other_bytes_with_the_old_time_count_as_a_change(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    os.utime(file, ns=(1, 1))
    before = os.stat(file)
    while os.stat(file).st_ctime_ns == before.st_ctime_ns:
        file.write_text("b")
        os.utime(file, ns=(1, 1))
    assert not same(before, os.stat(file))
