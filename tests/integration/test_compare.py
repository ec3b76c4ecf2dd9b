"""`lamella compare` as a user runs it, with a small environment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from platform import freedesktop_os_release
from typing import TYPE_CHECKING, Any

import pytest

from lamella.comparison import read
from lamella.comparison.scratch import clear_abandoned
from node_part import debian
from support.engines import need, need_root
from support.installed import install, venv, wheel
from support.once import once
from support.processes import DEADLINE, started
from support.schemas import problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

SCHEMA = Path(__file__).parents[2] / "docs/reference/schemas/compare.json"
KILLS = 2
DEBIAN = "/usr/bin/python3"
"""Python that the base image has too: another one would be copied into it."""


@pytest.fixture(autouse=True)
def base_images(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the base image, which takes minutes to make, for the whole run, and nothing of a comparison that a test killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "base-images"))
    yield
    clear_abandoned(str(tmp_path / "scratch"))


def small_debian(shared: Path) -> Path:
    """A tar of Debian's Python and a shell, which takes seconds to make and to move."""
    tar = shared / "small-image" / "made.tar"
    with once(tar) as mine:
        if mine:
            packages = "python3-minimal,libpython3-stdlib,dash"
            command = [need("mmdebstrap"), "--quiet", "--variant=extract", f"--include={packages}", debian.RELEASE]
            subprocess.run([*command, str(tar)], check=True, stdin=subprocess.DEVNULL)
    return tar


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment of two packages, the larger with 2 MB."""
    prefix = venv(tmp_path / "env", python=DEBIAN if Path(DEBIAN).exists() else "")
    small = wheel(
        tmp_path, "small", files={"small/__init__.py": "VALUE = 1\n" * 8000, "small/rare.py": "VALUE = 1\n" * 8000}
    )
    large = wheel(
        tmp_path, "large", files={"large/__init__.py": "", "large/data.bin": random.Random(1).randbytes(2_000_000)}
    )
    install(prefix, small, large, by="uv")  # Without byte code, which a comparison must not add.
    return prefix


def compare(
    prefix: Path, tmp_path: Path, *flags: str, path: str | None = None
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A comparison that begins in `tmp_path`, with its own scratch and cache folders."""
    (tmp_path / "scratch").mkdir(exist_ok=True)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "lamella.cli",
        "compare",
        str(prefix),
        "--scratch",
        "scratch",
        *flags,
    ]
    env = {
        **os.environ,
        "TMPDIR": str(tmp_path / "tmp"),
        "PATH": path or os.environ["PATH"],
    }
    return started(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def without(folder: Path, *names: str) -> str:
    """A PATH with every program of this machine but those of these names."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name not in names and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def compared(prefix: Path, tmp_path: Path, *flags: str, path: str | None = None) -> dict[str, Any]:
    """The document of a comparison, valid by its schema."""
    with compare(prefix, tmp_path, "--json", *flags, path=path) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    assert problems(document, SCHEMA) == []
    assert read(document).complete
    return document


def is_claimed(claim: Path) -> bool:
    """Whether the process that claimed a folder runs, such as another test's comparison, which may be removing it now."""
    try:
        return Path("/proc", str(json.loads(claim.read_text())["pid"])).exists()
    except (OSError, ValueError):
        return True


def left(tmp_path: Path) -> list[str]:
    """Everything that a comparison in `tmp_path` left: processes, mounts, files."""
    found = [str(each) for each in (*(tmp_path / "scratch").iterdir(), *(tmp_path / "tmp").iterdir())]
    # Folders of sockets, whose paths are short.
    sockets = [str(each.parent) for each in Path("/tmp").glob("lamella-compare-*/claim.json") if not is_claimed(each)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if any(folder in line for folder in (str(tmp_path), *sockets))]
    found += sockets
    for each in Path("/proc").glob("[0-9]*"):
        try:
            # Some programs start others without the mark, or write their title over it.
            works_there = os.readlink(each / "cwd").startswith((f"{tmp_path}/scratch", *sockets))
            if works_there or b"LAMELLA_COMPARE=" + os.fsencode(tmp_path) in (each / "environ").read_bytes():
                found.append(f"{each}: {(each / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    return found


@pytest.mark.engine
def test_lamella_and_uv_reach_a_node_in_every_story_and_leave_nothing(prefix: Path, tmp_path: Path) -> None:
    need("docker-registry")
    before = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    flags = [f"--workflow={name}" for name in ("lamella", "uv-cold", "uv-warm", "uv-warm-uncompiled")]
    document = compared(prefix, tmp_path, *flags, "--nodes", "2")
    assert [run["failed"] for run in document["runs"]] == [None] * 32
    runs = {(run["workflow"], run["story"]): run for run in document["runs"]}
    # Twice: to the registry, and from it.
    assert runs["lamella", "new"]["uploaded"] > 2_000_000
    assert runs["lamella", "new"]["downloaded"] > 2_000_000
    assert runs["lamella", "new"]["registry_bytes"] > 2_000_000
    assert runs["lamella", "unchanged"]["uploaded"] < 100_000
    assert runs["lamella", "large-upgrade"]["uploaded"] > 2_000_000 > runs["lamella", "small-upgrade"]["uploaded"]
    assert runs["lamella", "ten-nodes"]["downloaded"] > 4_000_000
    assert runs["uv-cold", "new"]["downloaded"] > 2_000_000 > runs["uv-warm", "new"]["downloaded"]
    assert runs["uv-warm-uncompiled", "new"]["node_bytes"] < runs["uv-warm", "new"]["node_bytes"]
    assert {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")} == before
    assert left(tmp_path) == []


@pytest.mark.engine
def test_without_docker_the_rest_is_compared_and_docker_is_named_with_how_to_get_it(
    prefix: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("docker-registry", "cp"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or need(name))
    flags = ["--workflow=lamella", "--workflow=docker-copy", "--story=new", "--report=report"]
    document = compared(prefix, tmp_path, *flags, path=str(tmp_path / "bin"))
    assert [(run["workflow"], run["failed"]) for run in document["runs"]] == [("lamella", None)]
    assert document["workflows"][1]["missing"] == "docker: not installed; sudo apt install docker.io, or podman"
    assert json.loads((tmp_path / "report/result.json").read_text())["runs"] == document["runs"]


@pytest.mark.engine
@pytest.mark.root
@pytest.mark.parametrize(("engine", "workflow"), [("Docker", "docker-uv"), ("Podman", "docker-copy")])
def test_images_reach_a_node_and_leave_nothing(
    engine: str, workflow: str, prefix: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's base image is made; Podman's is a small one that an earlier comparison has kept."""
    need_root()
    for program in ("dockerd" if engine == "Docker" else "podman", "mmdebstrap", "docker-registry"):
        need(program)
    path = None
    if engine == "Podman":
        path = without(tmp_path / "bin", "docker", "dockerd", "containerd")
        kept = tmp_path / "kept/lamella/comparison"
        kept.mkdir(parents=True)
        (kept / f"{freedesktop_os_release().get('VERSION_CODENAME', 'stable')}.tar").hardlink_to(small_debian(shared))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    flags = [f"--workflow={workflow}", "--story=new", "--story=edit"]
    document = compared(prefix, tmp_path, *flags, path=path)
    assert {each["title"].partition(",")[0] for each in document["workflows"]} == {engine}
    assert [(run["story"], run["failed"]) for run in document["runs"]] == [("new", None), ("edit", None)]
    new, edit = document["runs"]
    assert [step["name"] for step in new["steps"]] == ["build", "push", "pull", "import"]
    assert new["uploaded"] > 2_000_000 > edit["uploaded"]
    assert new["node_bytes"] > 2_000_000 > edit["node_bytes"]
    assert left(tmp_path) == []


@pytest.mark.engine
def test_a_comparison_without_a_workflow_that_can_run_fails(prefix: Path, tmp_path: Path) -> None:
    need("docker-registry")
    with compare(prefix, tmp_path, "--workflow=conda-pack-gz", "--story=new") as process:
        out, err = process.communicate()
    assert process.returncode == 1, err
    assert "Left out:\n  conda-pack, tar.gz: conda-pack: packs conda environments alone" in out
    assert left(tmp_path) == []


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_at_any_moment_leaves_nothing(number: signal.Signals, prefix: Path, tmp_path: Path) -> None:
    need("docker-registry")
    workflow = (
        "docker-copy" if os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("mmdebstrap") else "uv-cold"
    )
    moments = random.Random(number)
    interrupted = 0
    for _ in range(KILLS):
        flags = ("--workflow=lamella", f"--workflow={workflow}", "--report=report")
        with compare(prefix, tmp_path, *flags) as process:
            try:
                out, err = process.communicate(timeout=moments.uniform(0.5, 12))
            except subprocess.TimeoutExpired:
                pass
            else:
                assert process.returncode == 0, f"{out}{err}"
                continue
            process.send_signal(number)
            process.send_signal(signal.SIGINT)
            # Engines end one after the other.
            process.communicate(timeout=3 * DEADLINE)
        interrupted += 1
        assert process.returncode != 0
        assert left(tmp_path) == []
    assert interrupted


@pytest.mark.engine
def test_what_a_killed_comparison_left_is_cleared_by_the_next(prefix: Path, tmp_path: Path) -> None:
    need("docker-registry")
    with compare(prefix, tmp_path, "--workflow=lamella") as process:
        while not list((tmp_path / "scratch").glob("*/session/registry")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert left(tmp_path) != []
    compared(prefix, tmp_path, "--workflow=lamella", "--story=new")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workflow", "rsync"], "--workflow rsync: not a workflow; use lamella, "),
        (["--story", "old"], "--story old: not a story; use new, "),
        (["--rounds", "0"], "--rounds 0: not a number from 1 to 100"),
        (["--registry", "https://localhost:5000"], "--registry https://localhost:5000: not HOST:PORT/REPOSITORY"),
        (["--delay-ms", "soon"], "--delay-ms soon: not a number from 0"),
    ],
)
def test_invalid_flags_are_named(flags: list[str], message: str, prefix: Path, tmp_path: Path) -> None:
    with compare(prefix, tmp_path, *flags) as process:
        out, err = process.communicate()
    assert process.returncode != 0
    assert out == ""
    assert message in err
    assert left(tmp_path) == []
