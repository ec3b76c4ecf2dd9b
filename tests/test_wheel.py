"""The wheel that is built is whole: it installs, it starts, and it holds the packages and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from lamella.cli.verbs import VERBS
from support.engines import need

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, its dependencies lent by the one that runs the tests."""
    prefix = tmp_path_factory.mktemp("installed") / "env"
    venv.create(prefix, with_pip=False)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--offline", "--quiet", "--no-deps", "--python", prefix, wheel], check=True)
    # A path in a .pth is not searched for further .pth files: the editable lamella over there stays unseen.
    (site,) = prefix.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return prefix


def test_the_wheel_holds_the_five_packages_and_their_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"lamella/{part}/py.typed" for part in ("layers", "builder", "integrations", "comparison", "cli")} <= set(
        names
    )
    assert {f"lamella/comparison/report/{name}" for name in ("page.html", "style.css")} <= set(names)
    code = [name for name in names if ".dist-info/" not in name and ".data/" not in name]
    assert {"/".join(name.split("/")[:2]) for name in code} == {
        "lamella/layers",
        "lamella/builder",
        "lamella/integrations",
        "lamella/comparison",
        "lamella/cli",
    }
    assert "lamella/__init__.py" not in names


def test_every_module_of_the_wheel_imports_in_a_fresh_environment(wheel: Path, installed: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modules = [
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in archive.namelist()
            if name.endswith(".py") and not name.endswith("__main__.py")
        ]
    program = f"import importlib\nfor name in {modules!r}: print(importlib.import_module(name).__file__)"
    done = subprocess.run([installed / "bin/python", "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A module that does something when it is imported would print, or read what it was not given.
    assert [line for line in done.stdout.splitlines() if not line.startswith(str(installed))] == []
    assert len(done.stdout.splitlines()) == len(modules)


def test_the_command_of_the_wheel_starts_and_shows_its_verbs(installed: Path) -> None:
    done = subprocess.run([installed / "bin/lamella", "--help"], check=True, capture_output=True, text=True)
    assert "inspect" in done.stdout
    shown = subprocess.run([installed / "bin/lamella", "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("lamella 0.")


def test_the_wheel_brings_a_manual_page_for_each_verb_and_completion_for_each_shell(installed: Path) -> None:
    pages = {page.stem for page in installed.glob("share/man/man1/*.1")}
    assert pages == {"lamella", *(f"lamella-{verb}" for verb in VERBS)}
    for script in (
        "bash-completion/completions/lamella",
        "zsh/site-functions/_lamella",
        "fish/vendor_completions.d/lamella.fish",
    ):
        assert "mount" in (installed / "share" / script).read_text()


@pytest.mark.engine
@pytest.mark.parametrize("page", ["lamella", "lamella-push"])
def test_man_finds_and_formats_the_pages_of_the_prefix_on_path(page: str, installed: Path) -> None:
    environment = {"PATH": f"{installed}/bin:{os.environ['PATH']}", "MANWIDTH": "80", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [need("man"), "--warnings", page], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert f"NAME {page} - " in " ".join(done.stdout.split())
    assert "       lamella push --dry-run oci:images:v1 .venv\n" in done.stdout or page == "lamella"
