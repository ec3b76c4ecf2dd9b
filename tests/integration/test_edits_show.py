"""Edits of an environment on a node: they show at the next import, where it is meant to be written."""

from __future__ import annotations

import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.scan import scan
from lamella.layers.mounting.source_checks import NAME
from support import tars
from support.command_line import command_line
from support.installed import install, venv, wheel
from support.scanned import SITE, findings, reasons

if TYPE_CHECKING:
    from pathlib import Path

    from support.once import Lamella

pytestmark = [pytest.mark.slow]


POINTS = "[console_scripts]\ntool = tool:main\n"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> str:
    """An environment with a module that says `one`."""
    folder = tmp_path_factory.mktemp("edits")
    prefix = install(
        venv(folder / "env"), wheel(folder, "tool", files={"tool.py": "VALUE = 'one'\n"}, entry_points=POINTS)
    )
    done = command_line(folder, shared / "cache")("push", "--quiet", f"oci:{folder}/layout:v1", prefix)
    assert done.returncode == 0, done.stderr
    return f"oci:{folder}/layout:v1"


def value(prefix: Path, *arguments: str) -> str:
    command = [str(prefix / "bin/python"), *arguments, "-c", "import tool; print(tool.VALUE)"]
    return str(subprocess.run(command, check=True, capture_output=True, text=True).stdout).strip()


def edited(prefix: Path) -> str:
    """The value that programs see after an edit of the module that keeps its size and its time."""
    assert value(prefix) == "one"
    module = prefix / SITE / "tool.py"
    before = module.stat()
    module.write_text(module.read_text().replace("one", "two"))
    subprocess.run(["touch", "-d", f"@{before.st_mtime_ns / 1e9}", module], check=True)
    first = value(prefix, "-I")
    assert value(prefix) == first, "the byte code that was written meanwhile says the same"
    return first


@pytest.mark.root
@pytest.mark.parametrize("option", ["--writable", "--changes", "--method"])
def test_an_edit_shows_in_a_mount_that_can_be_written(
    tmp_path: Path, lamella: Lamella, reference: str, option: str
) -> None:
    target = tmp_path / "mount"
    values = {"--writable": "", "--changes": f"{tmp_path}/kept", "--method": "copies --writable"}
    more = values[option].split()
    done = lamella("mount", option, *more, reference, target)
    assert done.returncode == 0, done.stderr
    try:
        assert edited(target) == "two"
        if option == "--changes":
            assert lamella("umount", target).returncode == 0
            assert lamella("mount", option, *more, reference, target).returncode == 0
            assert value(target) == "two"
    finally:
        assert lamella("umount", target).returncode == 0


@pytest.mark.root
def test_a_mount_that_is_not_meant_to_be_written_reads_no_source(
    tmp_path: Path, lamella: Lamella, reference: str
) -> None:
    target = tmp_path / "mount"
    assert lamella("mount", reference, target).returncode == 0
    try:
        assert not list(target.glob(f"{SITE}/*lamella*"))
    finally:
        assert lamella("umount", target).returncode == 0


@pytest.mark.parametrize("name", ["folder", "archive.tar.gz"])
def test_an_edit_shows_in_an_export(tmp_path: Path, lamella: Lamella, reference: str, name: str) -> None:
    made = tmp_path / "made" / name
    done = lamella("export", reference, made)
    assert done.returncode == 0, done.stderr
    if made.is_file():
        with tarfile.open(made) as tar:
            tars.extract(tar, tmp_path / "unpacked", trusted=True)
        made = tmp_path / "unpacked"
    assert edited(made) == "two"


def test_an_edited_export_is_pushed_as_any_environment(tmp_path: Path, lamella: Lamella, reference: str) -> None:
    """Files that Lamella added to it belong to no package, and do not ship."""
    made = tmp_path / "made"
    assert lamella("export", reference, made).returncode == 0
    assert edited(made) == "two"
    again = f"oci:{tmp_path}/layout:v2"
    done = lamella("push", "--quiet", again, made)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other"
    assert lamella("export", again, other).returncode == 0
    assert value(other) == "two"
    ours = {path for path, reason in reasons(scan(str(made))).items() if reason.startswith("made by Lamella")}
    added = {f"bin/{name}" for name in ("activate", "activate.csh", "activate.fish", "conda-unpack", "lamella-unpack")}
    assert ours == {".lamella", f"{SITE}/{NAME}", *added}
    # The script names its new place, which is not a change.
    (patched,) = findings(scan(str(made)), "patched")
    assert patched.message.startswith(f"{SITE}/tool.py: changed since tool 1.0")
