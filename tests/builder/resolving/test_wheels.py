"""Wheels laid out in a prefix give the layers of a native installation."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from typing import TYPE_CHECKING, Literal

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.layer.layer_set import layers
from lamella.builder.resolving.wheels import Wheel, install_wheels
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.progress.display import Silent
from support.installed import install, venv, wheel
from support.other_systems import ignore_case
from support.scanned import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

PYTHON = ".".join(map(str, sys.version_info[:3]))
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
ENTRY_POINTS = "[console_scripts]\ntool = tools:main\ndotted = tools:Main.run\n[gui_scripts]\nwindow = tools:main\n"
WHEELS: Mapping[str, Mapping[str, str]] = {
    "tools": {"tools.py": "def main(): pass\n"},
    "scripted": {
        "{data}/scripts/run-it": "#!python -E\nprint()\n",
        "{data}/scripts/plain.sh": "#!/bin/sh\n",
        "{data}/scripts/windowed": "#!pythonw\nprint()\n",
    },
    "spread": {
        "spread.py": "",
        "{data}/data/share/spread/table.csv": "1,2\n",
        "{data}/data/etc/spread.conf": "",
        "{data}/headers/spread.h": "int spread;\n",
        "{data}/purelib/pure_part.py": "",
        "{data}/platlib/plat_part.py": "",
    },
    "ns-one": {"shared/one.py": ""},
    "ns-two": {"shared/two.py": ""},
    "odd": {
        "odd/a,b.txt": "comma",
        "odd/ümlaut.txt": "",
        "odd/empty/__init__.py": "",
        "odd/__pycache__/x.cpython-39.pyc": "",
    },
}
CLASHING: Mapping[str, Mapping[str, str]] = {"a": {"shared/one.py": "a"}, "b": {"shared": "b"}}


@pytest.fixture
def wheels(tmp_path: Path) -> list[str]:
    made = []
    for name, files in WHEELS.items():
        points = ENTRY_POINTS if name == "tools" else ""
        made.append(str(wheel(tmp_path / "wheels", name, files=files, entry_points=points)))
    made.append(
        str(wheel(tmp_path / "wheels", "tagged", files={"tagged/__init__.py": ""}, tag=f"{TAG}-{TAG}-linux_x86_64"))
    )
    return made


def laid_out(prefix: Path, paths: list[str]) -> tuple[str, ...]:
    return install_wheels(paths, str(prefix), PYTHON, Silent())


def keys(prefix: Path, cache: Path) -> dict[str, str]:
    """Layer key of each package in the environment at `prefix`: it covers every byte of its layer."""
    environment = scan(str(prefix), ScanOptions(cache=str(cache)))
    made = layers(environment, image_prefix="/opt/env", compression="zstd", image_layers=100)
    return {one.package.name: one.wanted.key for one in made.packages}


def tree(prefix: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(prefix)): (path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_ino)
        for path in sorted(prefix.rglob("*"))
        if path.is_file()
    }


def test_unchanged_wheel_is_not_touched_and_a_removed_one_leaves_nothing(wheels: list[str], tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    laid_out(prefix, wheels[:1])
    before = tree(prefix)
    assert "ns-one" in laid_out(prefix, wheels)
    assert laid_out(prefix, wheels) == ()
    assert {path: found for path, found in tree(prefix).items() if path in before} == before
    assert laid_out(prefix, wheels[:1]) == tuple(sorted([*(set(WHEELS) - {"tools"}), "tagged"]))
    assert tree(prefix) == before
    assert not (prefix / "share").exists()


def test_new_version_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    laid_out(prefix, [str(wheel(tmp_path, "demo", "1.0", {"demo/old.py": "", "demo/same.py": ""}))])
    assert laid_out(prefix, [str(wheel(tmp_path, "demo", "2.0", {"demo/same.py": "2"}))]) == ("demo",)
    site = prefix / SITE
    assert sorted(os.listdir(site)) == ["demo", "demo-2.0.dist-info"]
    assert os.listdir(site / "demo") == ["same.py"]


def test_a_hard_link_in_the_prefix_is_not_written_through(tmp_path: Path) -> None:
    prefix, shared = tmp_path / "target", tmp_path / "shared"
    (prefix / SITE / "demo").mkdir(parents=True)
    shared.write_text("of another tool's cache")
    os.link(shared, prefix / SITE / "demo/code.py")
    path = str(wheel(tmp_path, "demo", "1.0", {"demo/code.py": "value = 1\n"}))
    install_wheels([Wheel(path, (("direct_url.json", b"{}"),))], str(prefix), PYTHON, Silent())
    for name in ("demo/code.py", "demo-1.0.dist-info/RECORD", "demo-1.0.dist-info/direct_url.json"):
        place = prefix / SITE / name
        place.unlink()
        os.link(shared, place)
    record = tmp_path / "target.wheels.json"
    record.write_text(record.read_text().replace(path, "earlier"))
    install_wheels([Wheel(path, (("direct_url.json", b"{}"),))], str(prefix), PYTHON, Silent())
    assert (prefix / SITE / "demo/code.py").read_text() == "value = 1\n"
    assert shared.read_text() == "of another tool's cache"


def test_interrupted_installation_is_mended_by_the_next(wheels: list[str], tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    laid_out(prefix, wheels)
    whole = {path: found[:2] for path, found in tree(prefix).items()}
    record = tmp_path / "target.wheels.json"
    value = json.loads(record.read_text())
    value["wheels"]["spread"]["wheel"] = ""  # listed, and not known to be moved as a whole
    record.write_text(json.dumps(value))
    (prefix / SITE / "spread.py").unlink()
    assert laid_out(prefix, wheels) == ("spread",)
    assert {path: found[:2] for path, found in tree(prefix).items()} == whole


def test_damaged_wheel_is_refused_and_the_prefix_stays_as_it_was(wheels: list[str], tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    laid_out(prefix, wheels[:1])
    before = tree(prefix)
    damaged = tmp_path / "damaged-1.0-py3-none-any.whl"
    damaged.write_bytes(b"not a wheel")
    with pytest.raises(BuilderError, match=r"wheel damaged-1\.0-py3-none-any\.whl: .*; remove it from the cache"):
        laid_out(prefix, [*wheels, str(damaged)])
    assert tree(prefix) == before
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_wheel_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    path = wheel(tmp_path, "demo")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
    with pytest.raises(BuilderError, match=r"holds two files demo-1\.0\.dist-info/WHEEL; remove it from the cache"):
        laid_out(prefix, [str(path)])
    assert os.listdir(prefix) == []


def test_further_metadata_is_recorded(tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    path = str(wheel(tmp_path, "demo"))
    install_wheels([Wheel(path, (("direct_url.json", b"{}"),))], str(prefix), PYTHON, Silent())
    info = prefix / SITE / "demo-1.0.dist-info"
    assert (info / "direct_url.json").read_bytes() == b"{}"
    assert "demo-1.0.dist-info/direct_url.json,," in (info / "RECORD").read_text().splitlines()


@pytest.mark.parametrize("by", ["pip", "uv"])
def test_layers_are_those_of_a_native_installation(wheels: list[str], tmp_path: Path, by: Literal["pip", "uv"]) -> None:
    native = install(venv(tmp_path / "native"), *wheels, by=by)
    foreign = venv(tmp_path / "foreign")
    laid_out(foreign, wheels)
    found = keys(foreign, tmp_path / "cache")
    assert set(WHEELS) <= set(found)
    assert found == keys(native, tmp_path / "cache")


@pytest.mark.parametrize("history", [("a", "b"), ("b", "a"), ("ab",), ("a", "ab", "b", "ab"), ("abc", "bc", "ab")])
def test_a_path_of_two_wheels_is_of_the_last_by_name_whatever_was_there_before(
    history: tuple[str, ...], tmp_path: Path
) -> None:
    prefix = venv(tmp_path / "target")
    files = {
        "a": {"shared/one.py": "a"},
        "b": {"shared/one.py": "b", "shared/two.py": "b"},
        "c": {"shared/two.py": "c"},
    }
    made = {name: str(wheel(tmp_path, name, files=files[name])) for name in files}
    for names in (*history, "ab"):
        laid_out(prefix, [made[name] for name in names])
    assert [(prefix / SITE / "shared" / name).read_text() for name in ("one.py", "two.py")] == ["b", "b"]
    reported = scan(str(prefix), ScanOptions(cache=str(tmp_path / "cache"))).findings
    assert [each.kind for each in reported if "shared/one.py" in each.message] == ["owners"]
    laid_out(prefix, [made["a"]])
    assert (prefix / SITE / "shared/one.py").read_text() == "a"
    laid_out(prefix, [str(wheel(tmp_path / "newer", "a", "2.0", {"shared/one.py": "a 2"})), made["b"]])
    assert (prefix / SITE / "shared/one.py").read_text() == "b"


def test_a_file_at_the_place_of_another_wheel_s_folder_is_refused(tmp_path: Path) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    laid_out(prefix, [str(wheel(tmp_path, "a", files={"shared/one.py": "a"}))])
    before = tree(prefix)
    with pytest.raises(
        BuilderError, match=rf"^{SITE}/shared: a file in b and a folder in a; uninstall one of the two$"
    ):
        laid_out(prefix, [str(wheel(tmp_path, name, files=files)) for name, files in CLASHING.items()])
    assert tree(prefix) == before


@pytest.mark.parametrize(
    ("contents", "refusal"),
    [
        ([{"demo/A.py": "1", "demo/a.py": "2"}], "demo/a.py by that name"),
        ([{"Demo/a.py": "1", "demo/b.py": "2"}], "demo/b.py by that name"),
        ([{"Demo/a.py": "1"}, {"demo/b.py": "2"}], f"demo/b.py beside {SITE}/Demo"),
    ],
)
def test_files_that_a_disk_which_ignores_case_would_merge_are_refused(
    contents: list[Mapping[str, str]], refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "target"
    prefix.mkdir()
    made = [str(wheel(tmp_path, f"demo{number}", files=files)) for number, files in enumerate(contents)]
    with monkeypatch.context() as patched:
        ignore_case(patched)
        with pytest.raises(BuilderError) as refused:
            laid_out(prefix, made)
    assert f": this disk cannot hold {SITE}/{refusal}; set LAMELLA_CACHE to a case-sensitive folder" in str(
        refused.value
    )
    assert os.listdir(prefix) == []
    assert "demo0" in laid_out(prefix, made)
