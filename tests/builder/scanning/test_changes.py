"""Changes between two scans or during one, and files that a user may not read."""

from __future__ import annotations

import sys
from functools import partial
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files import read
from lamella.builder.layer import layer_set
from lamella.builder.prefix.walk import walk
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.people import NOBODY, as_user, folder_of
from support.processes import started
from support.scanned import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lamella.builder.files.read import FileContent

pytestmark = pytest.mark.slow

WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY)
print("writing", flush=True)
while True:
    os.pwrite(file, os.urandom(1), 0)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("changes") / "env")


def layer_keys(prefix: Path) -> dict[str, str]:
    found = layer_set.layers(
        scan(str(prefix)), image_prefix="/opt/env", compression="zstd", image_layers=100, notes=None
    ).packages
    return {each.package.name: each.wanted.key for each in found}


def content_of(folder: str) -> dict[str, FileContent]:
    entries = walk(folder).entries
    return dict(read.read_all([(entry.source, entry.seen) for entry in entries], ()))


@pytest.mark.parametrize(
    ("files", "entry_points"),
    [
        ({"tool/renamed.py": "value = 1\n"}, "[plugins]\none = tool\n"),
        ({"tool/module.py": "value = 1\n"}, "[plugins]\nanother = tool\n"),
    ],
    ids=["a module under another name", "another entry point alone"],
)
def test_a_small_change_of_a_package_makes_a_new_layer_of_it_alone(
    made: Path, tmp_path: Path, files: Mapping[str, str], entry_points: str
) -> None:
    still = wheel(tmp_path, "still", "1.0", {"still.py": ""})
    tool = wheel(
        tmp_path / "a", "tool", "1.0", {"tool/module.py": "value = 1\n"}, entry_points="[plugins]\none = tool\n"
    )
    other = wheel(tmp_path / "b", "tool", "1.0", files, entry_points=entry_points)
    before = layer_keys(install(made, still, tool, options=["--force-reinstall"]))
    after = layer_keys(install(made, other, options=["--force-reinstall"]))
    assert {name for name in before | after if before[name] != after[name]} == {"tool"}


def test_an_environment_that_is_written_to_is_not_scanned(made: Path) -> None:
    # Large enough that the clock of the file system moves on while it is read.
    data = made / SITE / "data.bin"
    data.touch()
    with data.open("r+b") as file:
        file.truncate(64 << 20)
    with started([sys.executable, "-c", WRITER, str(data)], stdout=PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        try:
            with pytest.raises(EnvironmentChanged, match=r"data\.bin: changed while the environment was scanned"):
                scan(str(made))
        finally:
            writer.kill()
            data.unlink()
    assert scan(str(made)).packages


@pytest.mark.root
@pytest.mark.parametrize(
    ("closed", "said"),
    [
        (
            "pkg/secret.py",
            r"cannot read .*/pkg/secret\.py: Permission denied; make it readable, or leave its package out",
        ),
        ("pkg", r"cannot list .*/pkg: Permission denied; make it readable for you"),
    ],
)
def test_an_unreadable_file_fails_the_scan_by_name(closed: str, said: str) -> None:
    with folder_of(NOBODY) as folder:
        (folder / "pkg").mkdir()
        (folder / "pkg" / "secret.py").write_text("")
        (folder / closed).chmod(0)
        with pytest.raises(CannotBuild, match=said):
            as_user(NOBODY, partial(content_of, str(folder)))
