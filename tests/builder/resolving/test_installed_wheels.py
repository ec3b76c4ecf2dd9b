"""An installed pure distribution, packed as the wheel that it came from."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.resolving.installed_packages import installed_packages
from lamella.builder.resolving.installed_wheels import packed
from support import foreign_trees as trees
from support.installed import wheel

if TYPE_CHECKING:
    from pathlib import Path

KINDS: tuple[trees.Kind, ...] = ("macos", "windows")
POINTS = "[console_scripts]\ntool = tool:main\n"


def content(path: Path | str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_wheel_has_the_content_of_the_one_that_was_installed(kind: trees.Kind, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    original = wheel(tmp_path, "tool", files={"tool.py": "def main(): ...\n"}, entry_points=POINTS)
    trees.install(made, kind, original, requested=["tool"])
    (found,) = installed_packages(str(made)).pypi
    assert content(packed(found, str(tmp_path / "packed"))) == content(original)


def test_the_same_files_are_the_same_wheel(tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    trees.install(made, "macos", wheel(tmp_path, "tool", files={"tool.py": ""}))
    (found,) = installed_packages(str(made)).pypi
    assert packed(found, str(tmp_path / "packed")) == packed(found, str(tmp_path / "packed"))


def test_a_repository_stays_recorded_as_the_source(tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    trees.install(made, "macos", wheel(tmp_path, "fork", files={"fork.py": ""}))
    info = trees.site_of(made, "macos") / "fork-1.0.dist-info"
    url = json.dumps({"url": "https://git.example.com/fork", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}})
    (info / "direct_url.json").write_text(url)
    with (info / "RECORD").open("a") as record:
        record.write("fork-1.0.dist-info/direct_url.json,,\n")
    (found,) = installed_packages(str(made)).pypi
    assert content(packed(found, str(tmp_path / "packed")))["fork-1.0.dist-info/direct_url.json"] == url.encode()


def test_a_module_without_its_source_is_packed_and_byte_code_of_a_source_is_not(tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    files = {"closed/__init__.pyc": "code", "open.py": ""}
    original = wheel(tmp_path, "closed", files=files)
    trees.install(made, "macos", original)
    site = trees.site_of(made, "macos")
    (site / "__pycache__").mkdir()
    (site / "__pycache__/open.cpython-311.pyc").write_bytes(b"code")
    with (site / "closed-1.0.dist-info/RECORD").open("a") as record:
        record.write("__pycache__/open.cpython-311.pyc,,\n")
    (found,) = installed_packages(str(made)).pypi
    assert content(packed(found, str(tmp_path / "packed"))) == content(original)
