"""Environments of macOS and Windows with compiled packages of an index: pushed from there, run on Linux."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lamella.layers.oci.documents import Platform
from support import foreign_trees as trees
from support.debian_pythons import PLATFORMS, SHORT, debian_pythons
from support.index import Index, serve_index
from support.installed import wheel
from support.once import once
from support.projects import editable, project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.debian_pythons import DebianPythons
    from support.once import Lamella

pytestmark = pytest.mark.engine

# Of these, greenlet needs the C++ library of the interpreter's image, cffi brings a library of its own, and click requires
# colorama on Windows alone.
PURE = ("jinja2==3.1.6", "click==8.1.8", "pycparser==2.22")
COMPILED = ("markupsafe==3.0.2", "pyyaml==6.0.2", "cffi==1.17.1", "greenlet==3.1.1")
OF_ONE_SYSTEM: dict[str, dict[str, str]] = {
    "macos": {"appnope": "0.1.4", "pyobjc-core": "10.3.1"},
    "windows": {"colorama": "0.4.6", "pywinpty": "2.0.14"},
}
TAGS = {
    "macos": ("macosx_11_0_arm64",),
    "windows": ("win_amd64",),
    "linux-amd64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "linux-arm64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
}
CODE = """
import json, os, platform
import _cffi_backend, cffi, click, fork, greenlet, jinja2, markupsafe._speedups, mine, yaml
double = greenlet.greenlet(lambda value: 2 * value)
print(json.dumps({
    "machine": platform.machine(),
    "text": jinja2.Template("{{ value }}").render(value=markupsafe.escape("<")),
    "yaml": yaml.load("[1, 2]", yaml.CSafeLoader),
    "size": cffi.FFI().sizeof("void *"),
    "double": double.switch(21),
    "mine": mine.WHO,
    "fork": fork.WHO,
    "compiled": all(os.path.isfile(each.__cached__) for each in (jinja2, click, mine, fork)),
}))
"""


@pytest.fixture(scope="module")
def pythons(shared: Path) -> DebianPythons:
    return debian_pythons(shared)


@pytest.fixture(scope="module")
def wheels(shared: Path) -> Path:
    """Folder of a folder for each system, with real wheels for it."""
    made = shared / "wheels-of-systems" / "made"
    with once(made) as mine:
        if mine:
            with ThreadPoolExecutor() as threads:
                list(threads.map(partial(download, made), TAGS))
    return made


def download(folder: Path, system: str) -> None:
    """Download the wheels of a system."""
    packages = [*PURE, *COMPILED, *(f"{name}=={version}" for name, version in OF_ONE_SYSTEM.get(system, {}).items())]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", SHORT, "--dest", str(folder / system)]
    command += [option for tag in TAGS[system] for option in ("--platform", tag)]
    subprocess.run([*command, *packages], check=True, stdin=subprocess.DEVNULL)


def laptop(folder: Path, kind: trees.Kind, wheels: Path) -> Path:
    """An environment of that system, with a local project and a package from Git."""
    made = trees.venv(folder / kind, kind, f"{SHORT}.7")
    requires = ["jinja2", "click", "greenlet", "cffi", 'appnope; sys_platform == "darwin"']
    fork = wheel(folder / "from", "fork", files={"fork.py": "WHO = 'fork'\n"}, requires=requires)
    trees.install(made, kind, *(wheels / kind).iterdir(), fork, requested=["fork", "pyobjc_core", "pywinpty"])
    site = trees.site_of(made, kind)
    source = {"url": "https://git.example.com/fork", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}
    (site / "fork-1.0.dist-info" / "direct_url.json").write_text(json.dumps(source))
    root = project(folder / "mine", "mine", {"mine/__init__.py": "import yaml\n\nWHO = 'mine'\n"})
    editable(site, root, "mine")
    return made


def run_python(
    lamella: Lamella, reference: str, platform: Platform, pythons: DebianPythons, folder: Path
) -> Mapping[str, object]:
    """What the code prints in the environment for `platform`."""
    if platform == Platform.here():
        done = lamella("run", reference, "--", "python", "-c", CODE)
    else:
        pulled = lamella("pull", "--platform", platform, reference)
        assert pulled.returncode == 0, pulled.stderr
        exported = lamella("export", "--platform", platform, reference, folder)
        assert exported.returncode == 0, exported.stderr
        command = [*pythons.command(platform), str(folder / "bin/python"), "-c", CODE]
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "platforms"), [("macos", PLATFORMS[1:]), ("macos", PLATFORMS), ("windows", PLATFORMS[:1])]
)
def test_compiled_packages_of_a_laptop_run_on_each_named_platform(
    kind: trees.Kind,
    platforms: tuple[Platform, ...],
    wheels: Path,
    pythons: DebianPythons,
    lamella: Lamella,
    tmp_path: Path,
) -> None:
    made = laptop(tmp_path, kind, wheels)
    (tmp_path / "served").mkdir()
    for path in {path.name: path for path in wheels.glob("*/*")}.values():
        os.link(path, tmp_path / "served" / path.name)
    reference = f"oci:{tmp_path}/layout:v1"
    line = ["push", "--no-local", "--platform", ",".join(map(str, platforms)), "--python-from", pythons.reference]
    with serve_index(Index(tmp_path / "served")) as index:
        settings = {"UV_DEFAULT_INDEX": index.url, "PIP_INDEX_URL": index.url, "PIP_EXTRA_INDEX_URL": ""}
        settings |= {"UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(tmp_path / "uv")}
        pushed = lamella(*line, reference, made, **settings)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stderr.count("a lock file") == len(platforms), pushed.stderr
    assert pushed.stdout.startswith(reference)
    if len(platforms) > 1:
        assert all(f"{each}: attached a lock file" in pushed.stderr for each in platforms), pushed.stderr
    for name, version in OF_ONE_SYSTEM[kind].items():
        assert re.search(rf"{name} +{re.escape(version)} +- ", pushed.stderr), pushed.stderr
    for platform in platforms:
        assert run_python(lamella, reference, platform, pythons, tmp_path / platform.architecture) == {
            "machine": {"amd64": "x86_64", "arm64": "aarch64"}[platform.architecture],
            "text": "&lt;",
            "yaml": [1, 2],
            "size": 8,
            "double": 42,
            "mine": "mine",
            "fork": "fork",
            "compiled": True,
        }
