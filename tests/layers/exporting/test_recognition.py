"""Exports are recognised by their bytes, under the suffix of their form."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.layers import Silent
from lamella.layers.exporting import additions
from lamella.layers.exporting.members import generated, place
from lamella.layers.exporting.recognition import is_export
from lamella.layers.exporting.target import ExportOptions, target_of
from lamella.layers.exporting.write import write
from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", "-1-el7.parcel"]


def exported(path: Path, options: ExportOptions = ExportOptions()) -> str:
    """Write an export of two files, with the folder of an archive that `options` may name."""
    own = [generated("a.py", b"a\n"), generated("bin/tool", os.urandom(4096), 0o755)]
    members = [*own, *additions.members("/opt/env", {}, conda=False)]
    target = target_of(str(path), options)
    write(target, sorted(members, key=lambda member: place(member.path)), 0, Silent())
    return str(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_is_recognised_in_each_form(tmp_path: Path, suffix: str) -> None:
    assert is_export(exported(tmp_path / f"env{suffix}"))


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_export_below_a_folder_of_its_own_is_recognised(tmp_path: Path, suffix: str) -> None:
    assert is_export(exported(tmp_path / f"env{suffix}", ExportOptions(root="a/long/" + "folder" * 20)))


@pytest.mark.engine
@pytest.mark.slow
def test_a_squashfs_image_of_an_export_is_recognised(tmp_path: Path) -> None:
    need("mksquashfs")
    assert is_export(exported(tmp_path / "env.squashfs"))


def test_other_archives_of_these_suffixes_are_not_exports(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data\n")
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data", "data")
        archive.add(tmp_path / "data", ".lamella/prefix")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as zipped:
        zipped.write(tmp_path / "data", "data")
    (tmp_path / "empty.zip").touch()
    (tmp_path / "junk.tar.gz").write_bytes(os.urandom(2000))
    (tmp_path / "short.tar.gz").write_bytes(gzip.compress(b"short"))
    for name in ("junk.tar", "junk.tar.bz2", "junk.tar.xz", "junk.tar.zst", "junk.squashfs", "PK.zip"):
        (tmp_path / name).write_bytes(b"PK\3\4" + os.urandom(20))
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    assert [path for path in tmp_path.iterdir() if is_export(str(path))] == []
