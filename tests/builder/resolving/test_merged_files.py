"""Conda packages that a disk which ignores case holds only in part are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.resolving.merged_files import merged_files
from support.foreign_trees import record
from support.other_systems import ignore_case

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_conda_package_whose_files_the_disk_merged_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    terminals = [f"share/terminfo/{name}" for name in ("2/2621A", "2/2621a", "N/ncr", "n/nec", "v/vt100")]
    record(prefix, "ncurses", "6.5", "linux-64", files=terminals)
    record(prefix, "other", "1.0", "linux-64", files=["share/other"])
    assert list(merged_files(str(prefix))) == []
    with monkeypatch.context() as patched:
        ignore_case(patched)
        (warning,) = merged_files(str(prefix))
    assert (warning.severity, warning.kind, warning.subject) == ("warning", "disk", "ncurses")
    assert warning.message.startswith(
        "ncurses: 2 files cannot be on this disk beside others, such as share/terminfo/2/2621A beside share/terminfo/2/2621a; "
        "set LAMELLA_CACHE and RATTLER_CACHE_DIR to case-sensitive folders"
    )
