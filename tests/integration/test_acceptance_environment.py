"""From one environment to a machine that has no Python: what the project promises, end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.command_line import command_line
from support.engines import need_root
from support.installed import install, venv, wheel
from support.once import once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.once import Lamella

LIBRARIES = "import numpy, pandas, sklearn, pyarrow, ssl, sqlite3, ctypes, lzma, bz2, hashlib, uuid, readline; print(numpy.ones(3).sum())"


def value(result: subprocess.CompletedProcess[str]) -> Any:
    """What a verb printed with --json; the test fails, with what it said, where the verb did."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def packages(document: Any) -> dict[str, str]:
    """Package name to digest, of an inspected reference."""
    (platform,) = document["platforms"]
    return {package["name"]: package["digest"] for package in platform["packages"]}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Lamella:
    """The command on a node whose store this module's tests share."""
    return command_line(tmp_path_factory.mktemp("node"), shared / "cache")


@pytest.fixture(scope="session")
def published(science: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scientific environment, pushed to a layout folder once a run: only read by tests."""
    layout = shared / "published-science" / "layout"
    reference = f"oci:{layout}:science"
    with once(layout) as mine:
        if mine:
            lamella = command_line(tmp_path_factory.mktemp("laptop"), shared / "cache")
            value(lamella("push", reference, science, "--json"))
    return reference


@pytest.fixture
def changing(published: str, tmp_path: Path) -> str:
    """The same, for a test that pushes to its layout."""
    layout, tag = published.removeprefix("oci:").rsplit(":", 1)
    shutil.copytree(f"{layout}/blobs", tmp_path / "layout/blobs", copy_function=os.link)
    for name in ("index.json", "oci-layout"):
        shutil.copy(f"{layout}/{name}", tmp_path / "layout")
    return f"oci:{tmp_path}/layout:{tag}"


@pytest.fixture(scope="module")
def mounted(published: str, debian: Path, node: Lamella, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A minimal Debian's root, with the environment mounted at the image prefix."""
    root = tmp_path_factory.mktemp("root")
    with ExitStack() as stack:
        mounts: list[list[Path | str]] = [
            ["--bind", debian, root],
            ["-t", "tmpfs", "none", root / "opt"],
            ["-t", "proc", "proc", root / "proc"],
        ]
        for words in mounts:
            subprocess.run(["mount", *words], check=True)
            stack.callback(subprocess.run, ["umount", words[-1]], check=True)
        (root / "opt/env").mkdir()
        stack.callback(node, "umount", root / "opt/env")
        result = node("mount", published, root / "opt/env")
        assert result.returncode == 0, result.stderr
        yield root


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `root` as its root, and nothing of this process's environment."""
    return subprocess.run(
        ["/usr/sbin/chroot", root, *command],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/opt/env/bin:/usr/bin:/bin", "HOME": "/tmp"},
    )


@pytest.mark.engine
@pytest.mark.root
def test_environment_runs_without_python_on_the_machine(mounted: Path) -> None:
    need_root()
    result = inside(mounted, "/opt/env/bin/python", "-c", LIBRARIES)
    assert (result.stdout, result.stderr) == ("3.0\n", "")


@pytest.mark.engine
@pytest.mark.root
def test_console_scripts_and_pip_run_without_python_on_the_machine(mounted: Path, science: Path) -> None:
    assert inside(mounted, "/opt/env/bin/httpx", "--help").returncode in (0, 1)
    assert "numpy" in inside(mounted, "/opt/env/bin/f2py").stdout
    here = subprocess.run(
        [science / "bin/pip", "--disable-pip-version-check", "list", "--format=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    there = inside(mounted, "/opt/env/bin/pip", "--disable-pip-version-check", "list", "--format=json")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)


@pytest.mark.engine
@pytest.mark.root
def test_byte_code_is_shipped_and_used(mounted: Path) -> None:
    result = inside(mounted, "/opt/env/bin/python", "-v", "-c", "import pandas")
    assert result.returncode == 0
    loaded = [line.split("'")[1] for line in result.stderr.splitlines() if "code object from '" in line]
    assert any("-packages/pandas/__pycache__/__init__." in name for name in loaded)
    assert [name for name in loaded if not name.endswith(".pyc")] == [], "compiled at import"


@pytest.mark.root
def test_python_sees_what_relocation_rewrote(lamella: Lamella, tmp_path: Path) -> None:
    """Byte code that did not look at its source would still say the image prefix."""
    need_root()
    prefix, target, reference = tmp_path / "env", tmp_path / "elsewhere", f"oci:{tmp_path}/layout:v1"
    install(venv(prefix), wheel(tmp_path, "placed", files={"placed.py": f"PREFIX = {str(prefix)!r}\n"}))
    assert lamella("push", reference, prefix).returncode == 0
    assert lamella("mount", reference, target).returncode == 0
    try:
        asked = "import placed; print(placed.PREFIX, placed.__cached__)"
        said = subprocess.run([target / "bin/python", "-c", asked], check=True, capture_output=True, text=True)
        place, code = said.stdout.split()
        assert os.path.exists(code)
    finally:
        lamella("umount", target)
    assert place == str(target)


def test_an_unchanged_environment_uploads_nothing(changing: str, science: Path, lamella: Lamella) -> None:
    first = value(lamella("inspect", changing, "--json"))
    again = value(lamella("push", changing, science, "--json"))
    assert again["uploaded"]["layers"] == 0
    assert again["uploaded"]["bytes"] == 0
    assert value(lamella("inspect", changing, "--json")) == first


def test_one_changed_package_moves_its_layer_alone(
    science: Path, lamella: Lamella, tmp_path: Path, changing: str
) -> None:
    value(lamella("pull", changing, "--json"))
    before = packages(value(lamella("inspect", changing, "--json")))
    changed = tmp_path / "changed"
    shutil.copytree(science, changed, symlinks=True, copy_function=os.link)
    module = next(changed.glob("lib/python3*/site-packages/six.py"))
    text = module.read_bytes() + b"\nPATCHED = True\n"
    module.unlink()
    module.write_bytes(text)
    for script in (changed / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and script.read_bytes().startswith(b"#!" + bytes(science)):
            moved = script.read_bytes().replace(bytes(science), bytes(changed))
            script.unlink()
            script.write_bytes(moved)
            script.chmod(0o755)

    reference = changing.replace(":science", ":changed")
    pushed = value(lamella("push", reference, changed, "--json"))
    after = packages(value(lamella("inspect", reference, "--json")))
    pulled = value(lamella("pull", reference, "--json"))

    assert {name for name in after if after[name] != before[name]} == {"six"}
    assert pushed["uploaded"]["layers"] <= 2, "six's own layer and the bundle that it is in"
    assert pulled["downloaded"]["layers"] == 1
    result = lamella("run", reference, "--", "python", "-c", "import six; print(six.PATCHED)")
    assert (result.stdout, result.returncode) == ("True\n", 0)


def test_run_passes_arguments_output_and_exit_codes_through(published: str, node: Lamella) -> None:
    result = node(
        "run", published, "--", "python", "-c", "import sys; print(sys.prefix, sys.argv[1:]); sys.exit(7)", "a b", "-c"
    )
    assert (result.stdout, result.returncode) == ("/opt/env ['a b', '-c']\n", 7)


def test_run_leaves_nothing_on_the_host(published: str, node: Lamella, tmp_path: Path) -> None:
    there_before = Path("/opt/env").exists()
    assert node("run", published, "--", "python", "-c", "import numpy").returncode == 0
    assert Path("/opt/env").exists() == there_before
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [fields for fields in mounts if fields[4] == "/opt/env" or str(tmp_path) in " ".join(fields)] == []
