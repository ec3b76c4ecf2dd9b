"""Every mistake that a user makes early: one clear sentence, an exit code, nothing half-made left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest

from lamella.cli.failures import EXIT_CODES
from support.engines import need_root

if TYPE_CHECKING:
    from pathlib import Path

    from support.once import Lamella


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without any package."""
    prefix = tmp_path_factory.mktemp("small") / "env"
    venv.create(prefix, with_pip=False)
    return prefix


def fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Asserts one sentence on stderr that has `words`, nothing on stdout and an exit code of Lamella's."""
    assert result.returncode in EXIT_CODES.values(), result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("lamella: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("verb", ["scan", "push"])
def test_missing_prefix_is_reported(verb: str, lamella: Lamella, tmp_path: Path) -> None:
    target = [f"oci:{tmp_path}/layout:x"] if verb == "push" else []
    fails(lamella(verb, *target, tmp_path / "absent"), str(tmp_path / "absent"))
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("verb", ["scan", "push"])
def test_an_empty_folder_as_prefix(verb: str, lamella: Lamella, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    target = [f"oci:{tmp_path}/layout:x"] if verb == "push" else []
    fails(lamella(verb, *target, tmp_path / "empty"), str(tmp_path / "empty"))
    assert not (tmp_path / "layout").exists()


def test_a_file_as_prefix(lamella: Lamella, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(lamella("scan", tmp_path / "file"), str(tmp_path / "file"))


def test_file_in_place_of_the_layout_is_reported(lamella: Lamella, tmp_path: Path, small: Path) -> None:
    (tmp_path / "file").write_text("mine")
    fails(lamella("push", f"oci:{tmp_path}/file:x", small), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", ["pull", "inspect"])
def test_missing_layout_is_reported(verb: str, lamella: Lamella, tmp_path: Path) -> None:
    fails(lamella(verb, f"oci:{tmp_path}/absent:x"), str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_a_tag_that_does_not_exist_names_those_that_do(lamella: Lamella, tmp_path: Path, small: Path) -> None:
    assert lamella("push", f"oci:{tmp_path}/layout:here", small).returncode == 0
    fails(lamella("pull", f"oci:{tmp_path}/layout:gone"), "gone", "here")


@pytest.mark.parametrize("verb", ["pull", "push", "inspect"])
def test_a_registry_that_is_down(verb: str, lamella: Lamella, small: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    prefix = [small] if verb == "push" else []
    fails(lamella(verb, f"localhost:{port}/team/envs:x", *prefix), f"localhost:{port}")


def test_invalid_reference_is_reported(lamella: Lamella) -> None:
    fails(lamella("pull", "https://user:hunter2@registry.example/team/envs:x"), "a URL", "***@registry.example")
    assert "hunter2" not in lamella("pull", "https://user:hunter2@registry.example/team/envs:x").stderr


def test_a_store_that_is_a_file(lamella: Lamella, tmp_path: Path, small: Path) -> None:
    assert lamella("push", f"oci:{tmp_path}/layout:x", small).returncode == 0
    (tmp_path / "file").write_text("mine")
    fails(lamella("pull", f"oci:{tmp_path}/layout:x", LAMELLA_STORE=str(tmp_path / "file")), str(tmp_path / "file"))


@pytest.mark.root
@pytest.mark.parametrize("what", ["store", "layout", "cache"])
def test_a_disk_that_fills_up(what: str, lamella: Lamella, tmp_path: Path, small: Path) -> None:
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    reference = f"oci:{tmp_path}/layout:x"
    if what == "store":
        assert lamella("push", reference, small).returncode == 0
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "none", disk], check=True)
    try:
        result = {
            "store": lambda: lamella("pull", reference, LAMELLA_STORE=str(disk / "store")),
            "layout": lambda: lamella("push", f"oci:{disk}/layout:x", small),
            "cache": lambda: lamella("push", reference, small, LAMELLA_CACHE=str(disk / "cache")),
        }[what]()
        fails(
            result,
            {"store": " free, the environment needs ", "layout": "no space left", "cache": "no space left"}[what],
            str(disk),
        )
        left = sum(entry.stat().st_size for entry in disk.rglob("*") if entry.is_file())
        assert left < 1 << 20, "what did not fit was taken away again"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.root
def test_a_read_only_store(lamella: Lamella, tmp_path: Path, small: Path) -> None:
    need_root()
    assert lamella("push", f"oci:{tmp_path}/layout:x", small).returncode == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=0755", "none", disk], check=True)
    try:
        fails(lamella("pull", f"oci:{tmp_path}/layout:x", LAMELLA_STORE=str(disk / "store")), str(disk))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_push_with_invalid_options_makes_no_layout(lamella: Lamella, tmp_path: Path, small: Path) -> None:
    assert os.path.isdir(small)
    result = lamella("push", f"oci:{tmp_path}/layout:x", small, "--image-prefix", "relative/path")
    assert result.returncode in (1, 2)
    assert "relative/path" in result.stderr
    assert not (tmp_path / "layout").exists()
