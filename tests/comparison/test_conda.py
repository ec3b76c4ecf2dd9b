"""Copies of conda environments at another place, with records that conda wrote for the former one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamella.comparison.errors import ComparisonError
from lamella.comparison.options import CompareOptions
from lamella.comparison.programs.commands import Commands
from lamella.comparison.subject.changes import copy_environment, upgrade
from lamella.comparison.subject.conda import NOT_COPIED, follow_move, is_conda, move_conda, upgrade_record
from lamella.comparison.subject.distributions import distributions
from lamella.comparison.subject.subject import Original
from lamella.comparison.workflows.conda_pack import GZ, ZST
from lamella.comparison.workflows.table import WORKFLOWS

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PLACE = "/new/place"
INFO = f"{SITE}/pack-1.0.dist-info"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """One package that conda installed, with files that name the prefix, and a file of another installer."""
    prefix = tmp_path / "env"
    old = str(prefix).encode()
    padded = b"\x7fELF\0" + old + b"/lib\0" + b"\0" * (255 - len(old)) + b"rest\0"
    files: dict[str, bytes] = {
        "bin/tool": b"#!" + old + b"/bin/python\nprint()\n",
        "lib/libpack.so": padded,
        "lib/libother.so": b"\x7fELF\0" + old + b"/lib\0rest",
        f"{SITE}/pack/__init__.py": b"HOME = '" + old + b"'\nOTHER = '" + old + b"-other'\n",
        f"{SITE}/pack/__pycache__/old.cpython-311.pyc": b"\0" + old,
        f"{INFO}/METADATA": b"Name: pack\nVersion: 1.0\n",
        f"{INFO}/RECORD": b"pack/__init__.py,,\npack-1.0.dist-info/METADATA,,\npack-1.0.dist-info/RECORD,,\n",
    }
    for name, data in files.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (prefix / "lib/absolute").symlink_to(prefix / "bin")
    (prefix / "lib/python3.1").symlink_to(Path(SITE).parts[1])
    placeholder = "/placeholder".ljust(255, "p")
    paths: list[dict[str, Any]] = [
        {"_path": name, "path_type": "hardlink", "sha256": digest(data), "sha256_in_prefix": digest(data)}
        for name, data in files.items()
        if "other" not in name and "pyc" not in name
    ]
    for item, mode in ((paths[0], "text"), (paths[1], "binary"), (paths[2], "text")):
        item |= {"prefix_placeholder": placeholder, "file_mode": mode}
    record = {
        "name": "pack", "version": "1.0", "build": "py_0", "fn": "pack-1.0-py_0.conda", "sha256": "of the archive",
        "url": "https://conda.example.com/noarch/pack-1.0-py_0.conda",
        "files": [item["_path"] for item in paths], "paths_data": {"paths": paths},
        "link": {"source": f"{prefix}/pkgs/pack-1.0-py_0", "type": 1},
    }  # fmt: skip
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/pack-1.0-py_0.json").write_text(json.dumps(record))
    (prefix / "conda-meta/history").write_text(f"# cmd: conda create -p {prefix}\n")
    return prefix


def taken(prefix: Path, *, is_conda: bool) -> Original:
    """An original of one distribution."""
    (found,) = distributions(str(prefix))
    return Original(
        folder=str(prefix), place=PLACE, is_conda=is_conda, wheels=None, no_wheels=None, distributions=(found,), sizes={},
        small=found, large=found, modules={}, base_prefix=None, python=sys.executable,
        python_version="3.11", byte_code=False,
    )  # fmt: skip


def record_of(prefix: Path) -> dict[str, Any]:
    """The one record of an environment."""
    (path,) = (prefix / "conda-meta").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    assert path.name == f"{found['name']}-{found['version']}-{found['build']}.json"
    return found


def test_a_moved_conda_environment_names_its_new_place_alone(prefix: Path) -> None:
    old = str(prefix)
    before = (prefix / "lib/libpack.so").read_bytes()
    moved = move_conda(old, old, PLACE)
    assert (prefix / "bin/tool").read_bytes() == b"#!/new/place/bin/python\nprint()\n"
    library = (prefix / "lib/libpack.so").read_bytes()
    assert library.startswith(b"\x7fELF\0/new/place/lib\0")
    assert len(library) == len(before)
    assert library.endswith(b"\0rest\0")
    assert (prefix / f"{SITE}/pack/__init__.py").read_text() == f"HOME = '/new/place'\nOTHER = '{old}-other'\n"
    assert (prefix / "lib/libother.so").read_bytes().startswith(b"\x7fELF\0/new/place/lib\0")
    assert os.readlink(prefix / "lib/absolute") == "/new/place/bin"
    assert os.readlink(prefix / "lib/python3.1") == Path(SITE).parts[1]
    assert (prefix / "conda-meta/history").read_text() == "# cmd: conda create -p /new/place\n"
    # Byte code stores the length of each string, and conda's cache stays at its place.
    assert "pyc" not in " ".join(moved.changed)
    assert record_of(prefix)["link"]["source"] == f"{old}/pkgs/pack-1.0-py_0"
    assert moved.kept == ()


def test_records_have_the_hashes_of_the_moved_files_and_byte_code_is_of_the_moved_module(
    prefix: Path, tmp_path: Path
) -> None:
    module = prefix / SITE / "pack/__init__.py"
    compile_all = [sys.executable, "-m", "compileall", "-q", str(module)]
    subprocess.run(compile_all, check=True)
    (byte_code,) = module.parent.glob("__pycache__/__init__.*.pyc")
    former = byte_code.read_bytes()
    moved = move_conda(str(prefix), str(prefix), PLACE)
    follow_move(str(prefix), PLACE, moved.changed, sys.executable, Commands(str(tmp_path / "scratch")))
    assert byte_code.read_bytes() != former
    assert b"/new/place/lib/" in byte_code.read_bytes()
    for item in record_of(prefix)["paths_data"]["paths"]:
        assert item["sha256_in_prefix"] == digest((prefix / item["_path"]).read_bytes())


def test_a_place_that_is_too_long_for_compiled_files_names_one_and_asks_for_a_shorter_scratch(prefix: Path) -> None:
    with pytest.raises(ComparisonError, match=r"^lib/libpack.so: holds the prefix .*; use a shorter --scratch$"):
        move_conda(str(prefix), str(prefix), "/long" * 60)


def test_compiled_files_of_other_installers_without_room_are_kept_and_named(prefix: Path) -> None:
    moved = move_conda(str(prefix), str(prefix), f"{prefix}-at-a-longer-path")
    assert moved.kept == ("lib/libother.so",)
    assert "lib/libpack.so" in moved.changed


def test_a_place_that_scripts_would_misread_is_refused(prefix: Path) -> None:
    with pytest.raises(ComparisonError, match=r"^--scratch: '/new/\$place': not usable as a prefix"):
        move_conda(str(prefix), str(prefix), "/new/$place")


def test_the_record_of_a_package_follows_its_upgrade(prefix: Path) -> None:
    (found,) = distributions(str(prefix))
    new = upgrade(found, 1)
    upgrade_record(str(prefix), found, new)
    record = record_of(prefix)
    assert record["version"] == new.version == "1.0+compare.1"
    assert record["fn"] == "pack-1.0+compare.1-py_0.conda"
    assert record["url"] == "https://conda.example.com/noarch/pack-1.0+compare.1-py_0.conda"
    # The archive of the former version, and its files in conda's cache, are not those of this one.
    assert "sha256" not in record
    assert record["link"]["source"] == ""
    assert f"{SITE}/pack-1.0+compare.1.dist-info/METADATA" in record["files"]
    for item in record["paths_data"]["paths"]:
        assert item["sha256_in_prefix"] == digest((prefix / item["_path"]).read_bytes())


def test_noarch_records_of_conda_follow_an_upgrade(prefix: Path) -> None:
    record = record_of(prefix)
    for item in record["paths_data"]["paths"]:
        item["_path"] = item["_path"].removeprefix(SITE.removesuffix("site-packages"))
    (prefix / "conda-meta/pack-1.0-py_0.json").write_text(json.dumps(record))
    (found,) = distributions(str(prefix))
    new = upgrade(found, 1)
    upgrade_record(str(prefix), found, new)
    hashes = {item["_path"]: item["sha256_in_prefix"] for item in record_of(prefix)["paths_data"]["paths"]}
    assert hashes["site-packages/pack/__init__.py"] == digest((prefix / SITE / "pack/__init__.py").read_bytes())
    assert "site-packages/pack-1.0+compare.1.dist-info/METADATA" in hashes


def test_a_base_environment_is_copied_without_other_environments_and_the_cache(prefix: Path, tmp_path: Path) -> None:
    for name in ("envs/other/bin", "pkgs/pack-1.0-py_0"):
        (prefix / name).mkdir(parents=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_environment(str(prefix), str(copy), linked=False, without=NOT_COPIED)
    assert sorted(each.name for each in copy.iterdir()) == ["bin", "conda-meta", "lib"]
    assert is_conda(str(copy))


def test_a_second_name_of_the_library_adds_no_distributions(prefix: Path) -> None:
    assert [each.info for each in distributions(str(prefix))] == [str(prefix / INFO)]


def test_conda_pack_is_left_out_for_a_virtual_environment_with_the_reason(prefix: Path) -> None:
    original = taken(prefix, is_conda=False)
    reasons = {
        each.name: each.missing(original, CompareOptions()) for each in WORKFLOWS if each.name.startswith("conda-pack")
    }
    assert reasons == dict.fromkeys(
        ("conda-pack-gz", "conda-pack-zst"), "conda-pack: packs conda environments alone; compare one"
    )


def script(folder: Path, interpreter: str, text: str) -> Path:
    """A program named conda-pack, in a folder of its own."""
    folder.mkdir()
    program = folder / "conda-pack"
    program.write_text(f"#!{interpreter}\n{text}\n")
    program.chmod(0o755)
    return program


@pytest.mark.slow
def test_conda_pack_without_what_it_needs_is_left_out_with_how_to_get_it(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = taken(prefix, is_conda=True)
    broken = script(tmp_path / "broken", "/absent/python", "")
    monkeypatch.setenv("PATH", str(broken.parent))
    reason = f"conda-pack: {broken} does not run; reinstall it"
    assert (GZ.missing(original, CompareOptions()), ZST.missing(original, CompareOptions())) == (reason, reason)
    # A Python without packages, as pipx makes them for conda-pack alone.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    bare = script(tmp_path / "bare", str(python), "print('conda-pack 0.9.2')")
    monkeypatch.setenv("PATH", os.pathsep.join((str(bare.parent), os.defpath)))
    assert ZST.missing(original, CompareOptions()) == (
        "conda-pack: cannot import zstandard; pipx inject conda-pack zstandard"
    )
    assert GZ.missing(original, CompareOptions()) is None
    assert GZ.programs() == {"conda-pack": "0.9.2"}
