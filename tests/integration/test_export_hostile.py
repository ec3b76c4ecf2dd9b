"""Whatever layers bring, an export writes, reads and removes nothing outside of what it makes."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import ExportError
from lamella.layers.exporting.export import export
from lamella.layers.exporting.target import ExportOptions
from lamella.layers.store.store import Store
from support.engines import need
from support.published import publish
from support.tars import snapshot
from support.trees import content

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.layers.exporting.target import Format


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder with whatever an export would write or remove, if it followed a link to it."""
    folder = tmp_path / "victim"
    for name in (
        "activate",
        "lamella-unpack",
        "prefix",
        "lib/lamella/layers/relocation/move.py",
        "lock",
        "moving/f",
        "relocate/x.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("untouched")
    return folder


@pytest.mark.engine
@pytest.mark.parametrize("format", ["dir", "squashfs"])
@pytest.mark.parametrize(
    "link", ["bin", ".lamella", "bin/activate", ".lamella/prefix", ".lamella/lock", ".lamella/moving"]
)
def test_nothing_is_written_or_removed_through_a_layers_link(
    store: Store,
    tmp_path: Path,
    victim: Path,
    link: str,
    format: Format,  # noqa: A002
) -> None:
    if format == "squashfs":
        need("mksquashfs")
    name = link.rpartition("/")[2] if "/" in link else ""
    reference = publish(tmp_path / "layout", [{"lib/a": "x", link: f"->{victim}/{name}".rstrip("/")}])
    before = snapshot(victim)

    made = export(reference, str(tmp_path / "env"), store=store, options=ExportOptions(format=format)).path

    assert snapshot(victim) == before
    if format == "dir":
        assert not os.path.islink(f"{made}/{link}")
        assert content(tmp_path / "env")[".lamella/prefix"] == f"{made}\n"


def test_nothing_is_written_through_a_link_in_the_place_of_the_lists(
    store: Store, tmp_path: Path, victim: Path
) -> None:
    reference = publish(tmp_path / "layout", [{"lib/a": "x", ".lamella/relocate": f"->{victim}"}])
    before = snapshot(victim)

    export(reference, str(tmp_path / "env"), store=store)

    assert snapshot(victim) == before
    assert os.listdir(tmp_path / "env/.lamella/relocate") == ["lamella-export.json"]


@pytest.mark.parametrize("path", ["../victim/activate", "ABSOLUTE", "lib/link/activate"])
def test_a_layer_can_not_bring_a_move_that_only_waits_to_be_finished(
    store: Store, tmp_path: Path, victim: Path, path: str
) -> None:
    layer = {
        "lib/link": f"->{victim}",
        ".lamella/moving/complete": json.dumps([path.replace("ABSOLUTE", f"{victim}/activate")]),
        ".lamella/moving/0": "overwritten",
    }
    reference = publish(tmp_path / "layout", [layer])
    before = snapshot(victim)

    export(reference, str(tmp_path / "env"), store=store)
    export(reference, str(tmp_path / "env.tar.gz"), store=store)
    export(reference, str(tmp_path / "env.zip"), store=store)

    assert snapshot(victim) == before
    assert not any(name.startswith(".lamella/moving") for name in content(tmp_path / "env"))
    with tarfile.open(tmp_path / "env.tar.gz") as tar, zipfile.ZipFile(tmp_path / "env.zip") as archive:
        assert not [name for name in tar.getnames() + archive.namelist() if "moving" in name]


EVIL = {"lib/evil": "x"}
LINK = {"lib": "->VICTIM"}


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([LINK, EVIL], {"lib/evil"}),
        ([EVIL, LINK], {"lib"}),
        ([EVIL, LINK, {"lib/other": "y"}], {"lib/other"}),
        ([{"a/b/c": "1", "a/d": "2"}, {"a/b": "3"}], {"a/b", "a/d"}),
    ],
)
def test_no_archive_holds_a_link_and_what_would_be_written_through_it(
    store: Store, tmp_path: Path, victim: Path, layers: list[dict[str, str]], left: set[str]
) -> None:
    made = [{name: text.replace("VICTIM", str(victim)) for name, text in layer.items()} for layer in layers]
    reference = publish(tmp_path / "layout", made)
    before = snapshot(victim)
    export(reference, str(tmp_path / "env"), store=store)
    export(reference, str(tmp_path / "env.tar.gz"), store=store)
    export(reference, str(tmp_path / "env.zip"), store=store)

    (tmp_path / "tar").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "env.tar.gz", "-C", tmp_path / "tar"], check=True)
    subprocess.run([need("unzip"), "-q", tmp_path / "env.zip", "-d", tmp_path / "zip"], check=True)

    assert snapshot(victim) == before
    for folder in ("env", "tar", "zip"):
        ours = {name for name in content(tmp_path / folder) if not name.startswith((".lamella/", "bin/"))}
        assert ours == left, folder


def test_a_layers_folder_in_the_place_of_a_file_of_ours_goes(store: Store, tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", [{"bin/activate/x": "x", "lib": "->elsewhere"}])

    export(reference, str(tmp_path / "env"), store=store)
    export(reference, str(tmp_path / "env.tar.gz"), store=store)

    assert (tmp_path / "env/bin/activate").is_file()
    with tarfile.open(tmp_path / "env.tar.gz") as tar:
        assert [name for name in tar.getnames() if name.startswith("bin/activate/")] == []
        assert tar.getmember("bin/activate").isfile()


def test_an_export_that_is_refused_for_a_list_leaves_nothing(store: Store, tmp_path: Path, victim: Path) -> None:
    listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "../../../../victim/activate", "kind": "text"}]})
    reference = publish(tmp_path / "layout", [{"lib/a": "x", ".lamella/relocate/pypi-x.json": listed}])
    before = snapshot(victim)

    with pytest.raises(ExportError, match="not a file of the environment"):
        export(reference, str(tmp_path / "new/folder/env"), store=store)

    assert snapshot(victim) == before
    assert sorted(os.listdir(tmp_path)) == ["layout", "store", "victim"]
