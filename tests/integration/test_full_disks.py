"""Disks that run full, of bytes or of inodes, at each stage of a push, a copy and an export of a prefix.

Each failure is one sentence with a next step; nothing is lost; the same command succeeds when there is room.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import LamellaError
from lamella.layers.published.copy import copy
from lamella.layers.published.validate import verify_reference
from support.disks import disk, enlarge
from support.installed import venv
from support.killed_writes import made
from support.packages import SITE
from support.projects import editable, project
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]

OPTIONS = PushOptions(max_layers=5, sbom=True)
STAGES = {
    "push with its cache": (140, 70),
    "push to a layout": (180, 46),
    "push of both": (400, 110),
    "copy to a layout": (180, 46),
}
"""The room in KiB and the inodes that suffice for each."""
STEPS = 10


@pytest.fixture
def references(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A source, and destinations: a layout on the small disk, one beside it, and a registry."""
    with RegistrySimulator().serving() as simulator:
        yield {
            "source": f"oci:{tmp_path}/source:v1",
            "disk": f"oci:{tmp_path}/disk/layout:v1",
            "layout": f"oci:{tmp_path}/layout:v1",
            "registry": f"{simulator.host}/team/envs:v1",
        }


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_runs_full_loses_nothing_and_the_next_command_succeeds(
    tmp_path: Path, references: dict[str, str], stage: str, *, inodes: bool
) -> None:
    env = made(tmp_path / "env", "env")
    expected = push(references["source"], env, OPTIONS, cache=LayerCache(str(tmp_path / "first"))).reference
    place, failed = tmp_path / "disk", []
    target = references["registry" if stage == "push with its cache" else "disk"]
    cache = str((tmp_path if stage == "push to a layout" else place) / "cache")

    def run() -> object:
        if stage == "copy to a layout":
            return copy(references["source"], target)
        return push(target, env, OPTIONS, cache=LayerCache(cache))

    for step in range(1, STEPS + 1):
        room = STAGES[stage][inodes] * step // STEPS
        with disk(place, f"nr_inodes={room}" if inodes else f"size={room}k"):
            try:
                run()
            except LamellaError as error:
                failed.append(str(error))
                assert_clear(str(error), place)
            assert_no_wrong_blob(place)
            enlarge(place)
            run()
            assert_whole(target, expected)
            assert_no_wrong_blob(place)
    assert 2 < len(failed) < STEPS


def assert_clear(message: str, place: Path) -> None:
    """One sentence that names the folder, the reason and the next step."""
    assert "\n" not in message
    assert re.search(r"no space left", message), message
    assert str(place) in message, message
    assert "; " in message, message
    assert "Errno" not in message, message


def assert_whole(reference: str, expected: str) -> None:
    verified = verify_reference(reference, deep=True)
    assert verified.faults == ()
    assert verified.reference.partition("@")[2] == expected.partition("@")[2]


def assert_no_wrong_blob(place: Path) -> None:
    for folder, _, names in os.walk(place):
        for name in names:
            if re.fullmatch("[0-9a-f]{64}", name) and os.path.basename(folder) == "sha256":
                with open(os.path.join(folder, name), "rb") as file:
                    assert hashlib.sha256(file.read()).hexdigest() == name


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A virtual environment with a project that ships as a wheel."""
    root = project(tmp_path / "demo", "demo", {f"demo/m{number}.py": "x = 1\n" * 2000 for number in range(6)})
    environment = venv(tmp_path / "env")
    editable(environment / SITE, root, "demo")
    return environment


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
def test_a_scan_needs_no_room_for_hashes(tmp_path: Path, prefix: Path, *, inodes: bool) -> None:
    """They are found again; the few files that Lamella generates ship, and need their room."""
    expected = shipped(prefix, tmp_path / "cache")
    place, complete = tmp_path / "disk", 0
    for room in (2, 5, 6, 8) if inodes else (4, 40, 80, 160):
        with disk(place, f"nr_inodes={room}" if inodes else f"size={room}k"):
            try:
                assert shipped(prefix, place / "cache") == expected
                complete += 1
            except LamellaError as error:
                assert_clear(str(error), place)
            enlarge(place)
            assert shipped(prefix, place / "cache") == expected
    assert complete


def shipped(prefix: Path, cache: Path) -> dict[str, str]:
    """Content of the packages' files."""
    packages = scan(str(prefix), ScanOptions(cache=str(cache))).packages
    return {f"{package.name}: {file.path}": file.digest for package in packages for file in package.files}


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
def test_a_wheel_that_does_not_fit_the_cache_is_built_when_there_is_room(
    tmp_path: Path, prefix: Path, *, inodes: bool
) -> None:
    expected = scan(str(prefix), ScanOptions(cache=str(tmp_path / "cache"), wheels=True))
    place, failed = tmp_path / "disk", []
    limits = (
        [f"nr_inodes={count}" for count in (2, 4, 6, 8, 10, 14)]
        if inodes
        else ["size=8k", "size=48k", "size=96k", "size=140k"]
    )
    for limit in limits:
        with disk(place, limit):
            options = ScanOptions(cache=str(place / "cache"), wheels=True)
            try:
                scan(str(prefix), options)
            except LamellaError as error:
                failed.append(str(error))
                assert_clear(str(error), place)
            enlarge(place)
            assert [each.name for each in scan(str(prefix), options).packages] == [
                each.name for each in expected.packages
            ]
    assert failed


@pytest.mark.parametrize("inodes", [False, True], ids=["bytes", "inodes"])
def test_a_full_folder_for_temporary_files_is_named(
    tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch, *, inodes: bool
) -> None:
    options = ScanOptions(cache=str(tmp_path / "cache"), wheels=True)
    for limit in ("nr_inodes=2", "nr_inodes=8", "nr_inodes=20") if inodes else ("size=4k", "size=40k", "size=100k"):
        with disk(tmp_path / "disk", limit):
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
            with pytest.raises(LamellaError) as caught:
                scan(str(prefix), options)
            assert_clear(str(caught.value), tmp_path / "disk")
            assert os.listdir(tmp_path / "disk") == []
            enlarge(tmp_path / "disk")
            scan(str(prefix), options)
            shutil.rmtree(tmp_path / "cache")
