"""With `--wheels` a local project ships as its wheel would install it."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content import package as content
from lamella.builder.errors import BuilderError
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.builder.wheels.unpack import unpack
from support.engines import missing, need
from support.installed import base_python, install, venv
from support.projects import editable, project
from support.scanned import SITE, file, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = pytest.mark.slow

PYPROJECT = """
[build-system]
requires = ["{requires}"]
build-backend = "{backend}"
[project]
name = "demo"
version = "1.0"
[project.scripts]
demo = "demo:main"
"""
EXTENSION = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"""
SETUP = """
from setuptools import Extension, setup
setup(ext_modules=[Extension("demo._native", ["native.c"])])
"""
BACKENDS = {
    "setuptools": (PYPROJECT.format(requires="setuptools", backend="setuptools.build_meta"), True),
    "hatchling": (PYPROJECT.format(requires="hatchling", backend="hatchling.build"), False),
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return venv(tmp_path / "env")


@pytest.fixture
def site(made: Path) -> Path:
    return made / SITE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without wheels."""
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def scanned(prefix: Path, **options: object) -> Environment:
    return scan(str(prefix), ScanOptions(wheels=True, **options))  # type: ignore[arg-type]


def canonical(environment: Environment, name: str) -> dict[str, tuple[int, str]]:
    """The canonical content of a package, but for the list of files to relocate, which names the package's origin."""
    entries = content.entries(environment, package(environment, name), "/opt/env")
    return {entry.path: (entry.mode, entry.digest) for entry in entries if "/.lamella/" not in entry.path}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_projects_wheel_is_the_same_twice_and_the_project_is_untouched(
    made: Path, site: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need_index(backend, tmp_path)
    settings, compiled = BACKENDS[backend]
    root = tmp_path / "demo"
    (root / "src" / "demo").mkdir(parents=True)
    (root / "src" / "demo" / "__init__.py").write_text("def main(): ...\n")
    (root / "pyproject.toml").write_text(settings)
    if compiled:
        need("gcc")
        monkeypatch.setenv("CFLAGS", "-g")
        (root / "setup.py").write_text(SETUP)
        (root / "native.c").write_text(EXTENSION)
    editable(site, root, "demo")
    before = tree(root)
    once = scanned(made)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "another cache"))
    again = scanned(made)
    assert canonical(once, "demo") == canonical(again, "demo")
    assert tree(root) == before
    assert "bin/demo" in paths(package(once, "demo"))
    assert any("_native" in path for path in shipped(once)) == compiled


def _need_index(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), requirement]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        missing(f"{requirement} can't be downloaded: give this machine an index")


def test_what_ships_is_what_an_install_of_the_wheel_would_ship(made: Path, site: Path, tmp_path: Path) -> None:
    files = {
        "demo/__init__.py": "built\n",
        "demo/data.txt": "data",
        "{data}/purelib/pure.py": "",
        "{data}/platlib/plat.py": "",
        "{data}/scripts/tool": "#!python -E\nprint()\n",
        "{data}/scripts/shell": "#!/bin/sh\n",
        "{data}/data/share/man/demo.1": "manual",
        "{data}/headers/demo.h": "header",
    }
    root = project(tmp_path / "demo", "demo", files, entry_points="[console_scripts]\ndemo = demo:main\n")
    editable(site, root, "demo")
    found = scanned(made)
    installed = install(venv(tmp_path / "other"), *root.glob("*.whl"))
    expected = {
        # pip leaves those alone that are not marked in the archive; the specification wants them executable.
        path: (0o755 if path.startswith("opt/env/bin/") else mode, digest)
        for path, (mode, digest) in canonical(scan(str(installed)), "demo").items()
    }
    assert canonical(found, "demo") == expected
    assert package(found, "demo").origin == "local"
    assert reasons(found)[str(root / "src" / "demo" / "__init__.py")] == "the wheel of demo ships in its place"
    assert not {finding.kind for finding in found.findings} & {"missing", "patched", "owners", "unowned", "duplicate"}


def test_the_working_directorys_wheel_ships_with_the_files_that_were_asked_for(made: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": "built\n"})
    (root / "table.csv").write_text("1,2")
    (tmp_path / "outside.csv").write_text("3,4")
    found = scanned(made, local=str(root), include=["table.csv", "../outside.csv"])
    names = {path.removeprefix(f"{SITE}/") for path in paths(package(found, "demo"))}
    assert {"demo.py", "table.csv", "outside.csv"} <= names
    assert not names & {"src/demo/__init__.py", "backend.py", "pyproject.toml"}


def test_code_outside_a_project_ships_as_it_is(made: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "module.py").write_text("")
    (site / "code.pth").write_text(f"{tmp_path}/code\n")
    found = scanned(made)
    assert file(found, f"{SITE}/module.py").source == str(tmp_path / "code" / "module.py")
    assert [finding.subject for finding in findings(found, "wheels")] == ["code"]


def test_a_file_with_credentials_in_a_wheel_does_not_ship(made: Path, site: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "demo", "demo", {"demo/__init__.py": "", "demo/.env": "TOKEN=canary"})
    editable(site, root, "demo")
    found = scanned(made)
    assert f"{SITE}/demo/.env" not in shipped(found)
    assert [finding.subject for finding in findings(found, "secret")] == [f"{SITE}/demo/.env"]


def test_the_wheel_is_built_for_the_environments_interpreter_and_without_its_packages(
    made: Path, site: Path, tmp_path: Path
) -> None:
    say = (
        "import sys, importlib.util as u; raise SystemExit(f'error: {sys.version_info[:3]} {u.find_spec(\"beside\")}')"
    )
    editable(site, project(tmp_path / "demo", "demo", {"demo.py": ""}, first=say), "demo")
    (site / "beside.py").write_text("")
    version = subprocess.run(
        [base_python(), "-c", "import sys; print(sys.version_info[:3])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with pytest.raises(BuilderError, match="error: ") as failed:
        scanned(made)
    assert f"{version} None" in str(failed.value)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("raise RuntimeError('no source of truth')", "RuntimeError: no source of truth"),
        (
            "print('lib.c:1:2: fatal error: x.h is gone'); raise OSError('exit 1')",
            "lib.c:1:2: fatal error: x.h is gone",
        ),
        ("raise OSError('error: https://me:canary@index/x')", "OSError: error: https://index/x"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_failed_build_shows_the_backends_own_message(
    made: Path, site: Path, tmp_path: Path, first: str, message: str
) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": ""}, first=first)
    editable(site, root, "demo")
    with pytest.raises(BuilderError) as failed:
        scanned(made)
    assert str(failed.value) == (
        f"no wheel of {root} can be built: {message}; correct the project, or push it as it is on disk, without --wheels"
    )


def test_a_wheel_that_leads_out_of_the_environment_is_refused(
    made: Path, site: Path, tmp_path: Path, cache: Path
) -> None:
    editable(site, project(tmp_path / "demo", "demo", {"../../outside.py": ""}), "demo")
    with pytest.raises(BuilderError, match="leads out of the environment"):
        scanned(made)
    assert not any("outside.py" in names for _, _, names in os.walk(cache))


def test_what_earlier_builds_left_and_links_out_of_the_project_are_seen_rightly(
    made: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("shared")
    (tmp_path / ".git").mkdir()
    say = 'raise SystemExit(f\'error: {sorted(set(os.listdir(os.curdir)) - {"__pycache__"})} {open("README.md").read()}\')'
    root = project(tmp_path / "demo", "demo", {"demo.py": ""}, first=say)
    editable(site, root, "demo")
    (root / "README.md").symlink_to("../README.md")
    os.mkfifo(root / "fifo")
    venv(root / ".venv")
    for left in ("build/lib", "dist", "demo.egg-info", "data"):
        (root / left).mkdir(parents=True)
    (root / ".lamellaignore").write_text("data\n")
    with pytest.raises(BuilderError, match="shared") as failed:
        scanned(made)
    assert (
        "['.lamellaignore', 'README.md', 'backend.py', 'build', 'demo-1.0-py3-none-any.whl', 'pyproject.toml', 'src']"
        in str(failed.value)
    )


def test_build_sees_no_link_out_of_the_repository_and_none_to_a_secret(made: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "history").write_text("CANARY")
    say = "raise SystemExit(f'error: {sorted(os.listdir(os.curdir))}')"
    root = project(tmp_path / "demo", "demo", {"demo.py": ""}, first=say)
    (root / ".git").mkdir()
    (root / ".env").write_text("CANARY")
    (root / "out.txt").symlink_to(tmp_path / "history")
    (root / "relative.txt").symlink_to("../history")
    (root / "secret.txt").symlink_to(".env")
    (root / "within.txt").symlink_to("backend.py")
    editable(site, root, "demo")
    with pytest.raises(BuilderError, match=r"within\.txt") as failed:
        scanned(made)
    assert not any(name in str(failed.value) for name in ("out.txt", "relative.txt", "secret.txt"))


@pytest.mark.parametrize("version", ["2.0", ""])
def test_unsupported_wheel_version_is_reported(made: Path, site: Path, tmp_path: Path, version: str) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": ""})
    _change_wheel(root, "demo-1.0.dist-info/WHEEL", f"Wheel-Version: {version}\nRoot-Is-Purelib: true\n")
    editable(site, root, "demo")
    with pytest.raises(BuilderError) as failed:
        scanned(made)
    assert str(failed.value) == (
        f"wheel demo-1.0-py3-none-any.whl: Incompatible Wheel-Version {version}, only support version 1.x wheels; "
        "correct the project's build, or push without --wheels"
    )


def test_file_that_differs_from_its_hash_in_record_is_reported(made: Path, site: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": "recorded"})
    _change_wheel(root, "demo.py", "changed", record=False)
    editable(site, root, "demo")
    with pytest.raises(BuilderError, match=r"Hash mismatch for file 'demo\.py'"):
        scanned(made)


def test_entry_point_wins_over_a_script_of_the_same_name(made: Path, site: Path, tmp_path: Path) -> None:
    files = {"demo.py": "", "{data}/scripts/demo": "#!/bin/sh\n"}
    root = project(tmp_path / "demo", "demo", files, entry_points="[console_scripts]\ndemo = demo:main\nbad = demo\n")
    editable(site, root, "demo")
    found = scanned(made)
    with open(file(found, "bin/demo").source, encoding="utf-8") as script:
        assert "from demo import main" in script.read()
    assert "bin/bad" not in shipped(found)


def test_byte_code_in_a_wheel_is_left_out(made: Path, site: Path, tmp_path: Path) -> None:
    editable(site, project(tmp_path / "demo", "demo", {"demo.py": "", "__pycache__/demo.cpython-311.pyc": ""}), "demo")
    assert not any(path.endswith(".pyc") for path in paths(package(scanned(made), "demo")))


def test_scripts_of_a_wheel_run_if_the_prefix_has_spaces(tmp_path: Path) -> None:
    prefix = venv(tmp_path / "an env")
    files = {
        "demo.py": "def main(): print('hello')\n",
        "{data}/scripts/tool": "#!python -E\nimport demo; demo.main()\n",
    }
    root = project(tmp_path / "demo", "demo", files, entry_points="[console_scripts]\ndemo = demo:main\n")
    unpack(
        str(next(root.glob("*.whl"))), str(prefix), short=SITE.split("/")[1].removeprefix("python"), prefix=str(prefix)
    )
    for name in ("demo", "tool"):
        done = subprocess.run([str(prefix / "bin" / name)], capture_output=True, text=True, check=True)
        assert done.stdout == "hello\n"


def _change_wheel(root: Path, member: str, content: str, *, record: bool = True) -> None:
    """Replaces a member of the project's wheel, and its line in RECORD as well if `record`."""
    (path,) = root.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = content.encode()
    (listed,) = (name for name in members if name.endswith("RECORD"))
    if record:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
        lines = members[listed].decode().splitlines()
        new = f"{member},sha256={digest},{len(content)}"
        members[listed] = "\n".join(new if line.startswith(f"{member},") else line for line in lines).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
