"""Prefixes that files can name, and how they are recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.files import prefix_pattern
from lamella.layers.relocation import prefixes
from lamella.layers.relocation.move import move
from lamella.layers.relocation.prefixes import CannotRelocate
from support.relocatable import relocatable
from support.trees import content

if TYPE_CHECKING:
    from pathlib import Path


def test_paths_are_recognised_by_the_packers_rule() -> None:
    assert prefixes.pattern(b"/opt/env").pattern == prefix_pattern.pattern((b"/opt/env",)).pattern


@pytest.mark.parametrize("prefix", ["/it's", '/a"b', "/$x", "/a\\b", "/a\nb", "/`x`"])
def test_a_folder_that_scripts_can_not_quote_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(CannotRelocate, match="not usable as a prefix"):
        move(str(relocatable(tmp_path, "/opt/env", {"x": "/opt/env"})), prefix)


@pytest.mark.parametrize("prefix", ["rel/x", "", "/a/../b", "/a/", "/a//b", "/a/./b", "//a"])
def test_an_invalid_prefix_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(CannotRelocate, match="use an absolute path"):
        move(str(relocatable(tmp_path, "/opt/env", {"x": "/opt/env"})), prefix)


@pytest.mark.parametrize("prefix", ["/", "/usr", "/usr/local", "/usr/bin", "/bin", "/etc", "/tmp", "/home", "/opt"])
def test_a_prefix_that_is_not_the_environments_alone_is_refused(tmp_path: Path, prefix: str) -> None:
    relocatable(tmp_path, "/opt/env", {"x": "#!/usr/bin/env python\n# /opt/env /etc/passwd"})

    with pytest.raises(CannotRelocate, match="files name it for the system's own paths"):
        move(str(tmp_path), prefix)

    move(str(tmp_path), "/usr/local/env")
    move(str(tmp_path), "/opt/env")
    assert content(tmp_path)["x"] == "#!/usr/bin/env python\n# /opt/env /etc/passwd"
