from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import MountError
from lamella.layers.mounting import link_tree
from support.disks import another_file_system
from support.trees import content, folders, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.mounting.link_tree import How


@pytest.mark.parametrize("how", ["hardlinks", "copies"])
def test_a_tree_holds_every_layers_files_and_the_last_of_what_many_hold(tmp_path: Path, how: How) -> None:
    write(tmp_path / "a", {"bin/tool*": "#!/bin/sh\n", "bin/t": "->tool", "x/deep/er": "1", "same": "a"})
    write(tmp_path / "b", {"same": "b", "x/other": "2"})
    (tmp_path / "t").mkdir()

    count = link_tree.lay([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "t"), how)

    assert count == 6
    assert content(tmp_path / "t") == {
        "bin/tool": "#!/bin/sh\n",
        "bin/t": "->tool",
        "x/deep/er": "1",
        "x/other": "2",
        "same": "b",
    }
    assert os.access(tmp_path / "t/bin/tool", os.X_OK)
    assert content(tmp_path / "a")["same"] == "a"


def test_a_tree_of_hardlinks_takes_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    layers = folders(tmp_path / "layers", 1)

    link_tree.lay(layers, str(tmp_path / "t"), "hardlinks")

    assert os.path.samefile(f"{layers[0]}/shared", tmp_path / "t/shared")


def test_a_tree_of_copies_shares_nothing_with_the_store(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    layers = folders(tmp_path / "layers", 1)

    link_tree.lay(layers, str(tmp_path / "t"), "copies")
    (tmp_path / "t/shared").write_text("changed")

    assert (tmp_path / "layers/layer-0000/shared").read_text() == "0"


def test_a_layer_that_has_a_file_where_another_has_a_folder_wins_when_it_is_later(tmp_path: Path) -> None:
    write(tmp_path / "a", {"x/y": "1", "z": "2"})
    write(tmp_path / "b", {"x": "3", "z/w": "4"})
    (tmp_path / "t").mkdir()

    link_tree.lay([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "t"), "hardlinks")

    assert content(tmp_path / "t") == {"x": "3", "z/w": "4"}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with another_file_system(tmp_path) as folder:
        yield folder


def test_hardlinks_to_another_file_system_are_refused_in_words(tmp_path: Path, memory: Path) -> None:
    with pytest.raises(MountError, match="must be on one file system"):
        link_tree.lay(folders(tmp_path, 1), str(memory), "hardlinks")


def test_copies_reach_another_file_system(tmp_path: Path, memory: Path) -> None:
    link_tree.lay(folders(tmp_path, 1), str(memory), "copies")

    assert content(memory)["shared"] == "0"


def test_a_file_system_without_reflinks_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()

    try:
        link_tree.lay(folders(tmp_path, 1), str(tmp_path / "t"), "reflinks")
    except MountError as error:
        assert str(error) == f"the file system of {tmp_path / 't'} has no reflinks"  # noqa: PT017 -- it may have them
    else:
        assert content(tmp_path / "t")["shared"] == "0"
