"""What a layer may not do where it becomes a part of an environment, and what others find there."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import MountError, UnsafeLayer
from lamella.layers.exporting.export import export
from lamella.layers.layout import OciLayout
from lamella.layers.mounting import lowerdirs, whole_tree
from lamella.layers.mounting.mount import MountOptions, mount
from lamella.layers.progress.display import Silent
from lamella.layers.pulling.fetch import fetch
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support import tars
from support.published import publish, publish_layers
from support.tars import END, file, folder, symlink
from support.trees import content

if TYPE_CHECKING:
    from lamella.layers.published.environment import PublishedEnvironment

LISTED = {
    "share/deep/where": "/opt/env\n",
    ".lamella/relocate/pypi-x.json": '{"prefix": "/opt/env", "files": [{"path": "share/deep/where", "kind": "text"}]}',
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder of the node that no environment may show."""
    made = tmp_path / "secret"
    (made / "relocate").mkdir(parents=True)
    (made / "env").mkdir()
    (made / "env/passwd").write_text("root")
    (made / "passwd").write_text("root")
    (made / "state").write_text('{"env_vars": {"PASSWORD": "root"}}')
    (made / "x.json").write_text(LISTED[".lamella/relocate/pypi-x.json"])
    (made / "relocate/x.json").write_text(LISTED[".lamella/relocate/pypi-x.json"])
    return made


def published_elsewhere(store: Store, tmp_path: Path, tar: bytes) -> str:
    """`published`, whose layer the store has from an environment with another image prefix; a pull would refuse it."""
    layer, _ = tars.layer(tar + END)
    reference = published(tmp_path, tar)
    fetch([layer], OciLayout(str(tmp_path / "layout")), store, Silent())
    return reference


def published(tmp_path: Path, tar: bytes) -> str:
    layout = tmp_path / "layout"
    good = tars.layer(file(b"opt/env/lib/good.py", b"x") + END, package="good")
    index = publish_layers(OciLayout(str(layout), create=True), "v1", [good, tars.layer(tar + END)])
    return f"oci:{layout}:v1@{index}"


@pytest.mark.parametrize("link", [b"opt", b"opt/env"])
def test_a_layer_whose_prefix_is_a_link_shows_nothing_of_the_node(
    store: Store, tmp_path: Path, secret: Path, link: bytes
) -> None:
    reference = published_elsewhere(store, tmp_path, symlink(link, bytes(secret)))
    before = tars.snapshot(secret)
    refused = rf"cannot mount layer demo 1\.0 \(sha256:\w+\): its {link.decode()} is a link"

    for use in (
        lambda: mount(reference, str(tmp_path / "target"), store=store),
        lambda: mount(reference, str(tmp_path / "target"), store=store, options=MountOptions(method="copies")),
        lambda: export(reference, str(tmp_path / "folder"), store=store),
        lambda: export(reference, str(tmp_path / "env.tar.gz"), store=store),
    ):
        with pytest.raises(UnsafeLayer, match=refused):
            use()

    assert tars.snapshot(secret) == before
    assert sorted(os.listdir(tmp_path)) == ["layout", "secret", "store"]


def test_a_layer_without_a_folder_at_the_prefix_is_left_out(store: Store, tmp_path: Path) -> None:
    environment = pull(published_elsewhere(store, tmp_path, file(b"opt/env2/x", b"x")), store=store).environment

    assert len(lowerdirs.folders(store, environment)) == 1


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (folder(b"opt/env") + symlink(b"opt/env/.lamella", b"SECRET"), ".lamella: is a link"),
        (
            folder(b"opt/env/.lamella") + symlink(b"opt/env/.lamella/relocate", b"SECRET"),
            ".lamella/relocate: is a link",
        ),
        (symlink(b"opt/env/.lamella/relocate/x.json", b"SECRET/x.json"), "x.json': in a list of files that hold"),
    ],
)
def test_lists_of_files_are_read_through_no_link(
    store: Store, tmp_path: Path, secret: Path, tar: bytes, message: str
) -> None:
    # A link's target has a field of its own in the header, whose checksum it changes: so made again.
    link = tar[-512:]
    name, target = link[:100].rstrip(b"\0"), link[157:257].rstrip(b"\0").replace(b"SECRET", bytes(secret))
    environment = pull(published(tmp_path, tar[:-512] + symlink(name, target)), store=store).environment

    with pytest.raises(MountError, match=re.escape(message)):
        lowerdirs.for_prefix(store, environment, "/elsewhere/env")


def test_an_export_takes_no_variables_from_files_of_the_node(store: Store, tmp_path: Path, secret: Path) -> None:
    reference = publish(tmp_path / "layout", [{"lib/x": "x", "conda-meta": f"->{secret}"}])

    export(reference, str(tmp_path / "env"), store=store)

    assert "PASSWORD" not in (tmp_path / "env/bin/activate").read_text()


@pytest.mark.parametrize("prefix", ["rel/x", "/tmp/a/../b", "/tmp/b/", "//tmp/b", "/tmp/./b", ""])
@pytest.mark.parametrize("files", [LISTED, {"lib/x": "x"}])
def test_a_relative_prefix_or_one_in_another_spelling_is_refused(
    store: Store, tmp_path: Path, prefix: str, files: dict[str, str]
) -> None:
    environment = pull(publish(tmp_path / "layout", [files]), store=store).environment

    with pytest.raises(MountError, match="use an absolute path"):
        lowerdirs.for_prefix(store, environment, prefix)


@pytest.mark.parametrize("make", ["relocated", "linked", "whole"])
def test_everybody_may_read_trees_made_of_layers_whatever_the_umask(store: Store, tmp_path: Path, make: str) -> None:
    environment = pull(publish(tmp_path / "layout", [LISTED]), store=store).environment
    before = os.umask(0o077)
    try:
        made = Path(_make(store, environment, make))
    finally:
        os.umask(before)

    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in made.rglob("*") if path.is_dir()} == {"0o755"}
    assert stat.S_IMODE((made / "share/deep/where").stat().st_mode) == 0o644


def test_a_relocated_file_takes_the_place_of_another_layers_folder(store: Store, tmp_path: Path) -> None:
    def listing(path: str) -> str:
        return json.dumps({"prefix": "/opt/env", "files": [{"path": path, "kind": "text"}]})

    layers = [
        {"x/y": "/opt/env", ".lamella/relocate/a.json": listing("x/y")},
        {"x": "/opt/env", ".lamella/relocate/b.json": listing("x")},
    ]
    environment = pull(publish(tmp_path / "layout", layers), store=store).environment

    *_, top = lowerdirs.for_prefix(store, environment, "/elsewhere/env")

    assert content(Path(top))["x"] == "/elsewhere/env"


def _make(store: Store, environment: PublishedEnvironment, what: str) -> str:
    if what == "relocated":
        return lowerdirs.for_prefix(store, environment, "/elsewhere/env")[-1]
    return (whole_tree.linked if what == "linked" else whole_tree.whole)(store, environment)
