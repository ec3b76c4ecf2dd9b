"""Editable installs: what they import from elsewhere on this disk ships where an ordinary install would put it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.scan import scan
from support.installed import By, install, venv, wheel
from support.scanned import SITE, file, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

BACKEND = """
import base64, hashlib, os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "demo-1.0-py3-none-any.whl"
    source = os.path.join(os.getcwd(), "src")
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("demo.pth", source + "\\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "demo.pth,,\\ndemo-1.0.dist-info/METADATA,,\\n"
            "demo-1.0.dist-info/WHEEL,,\\ndemo-1.0.dist-info/RECORD,,\\n")
    return name
"""

# What each backend's current version leaves in site-packages, shortened to what says where the code is.
STYLES = {
    "setuptools": {
        "__editable__.demo-1.0.pth": "import __editable___demo_1_0_finder; __editable___demo_1_0_finder.install()",
        "__editable___demo_1_0_finder.py": "MAPPING: dict[str, str] = {{'demo': '{project}/src/demo'}}\n",
    },
    "editables (hatchling, pdm)": {
        "_editable_impl_demo.pth": "import _editable_impl_demo",
        "_editable_impl_demo.py": (
            "from editables.redirector import RedirectingFinder as F\nF.install()\n"
            "F.map_module('demo', '{project}/src/demo/__init__.py')\n"
        ),
    },
    "scikit-build-core": {
        "_editable_skbc_demo.pth": "import _editable_skbc_demo\n{project}/src",
        "_editable_skbc_demo.py": (
            "def install(*a):\n    pass\ninstall({{'demo': '{project}/src/demo/__init__.py'}}, "
            "{{'demo._core': 'demo/_core.so'}}, {{}}, ['demo'], None, False, True, [], [], '')\n"
        ),
    },
    "meson-python": {
        "demo-editable.pth": "import _demo_editable_loader; _demo_editable_loader.init()",
        "_demo_editable_loader.py": (
            "def init():\n    finder = MesonpyMetaFinder('demo', {{'demo'}}, '{project}/build', ['ninja'], False)\n"
        ),
    },
    "a path": {"demo.pth": "# comment\n\n{project}/src\n"},
    "a path after a byte order mark": {"demo.pth": "\ufeff{project}/src\n"},
    "a relative path": {"demo.pth": "../../../../project/src\n"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("editable") / "env")


@pytest.fixture
def site(made: Path) -> Path:
    """site-packages of an environment that is empty again for each test."""
    folder = made / SITE
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder


@pytest.fixture
def project(made: Path) -> Path:
    """A project with a compiled module and data in its tree, as a build in place leaves it."""
    folder = made.parent / "project"
    code = folder / "src" / "demo"
    (code / "templates").mkdir(parents=True, exist_ok=True)
    (code / "__init__.py").write_text("VALUE = 1\n")
    (code / "_core.so").write_bytes(b"compiled")
    (code / "templates" / "page.html").write_text("<p>")
    plan = {
        "python": {f"{code}/__init__.py": {"destination": "{py_purelib}/demo/__init__.py"}},
        "targets": {f"{code}/_core.so": {"destination": "{py_platlib}/demo/_core.so"}},
        "install_subdirs": {f"{code}/templates/page.html": {"destination": "{py_purelib}/demo/templates/page.html"}},
        "data": {f"{folder}/manual.1": {"destination": "{mandir}/manual.1"}},
    }
    (folder / "build" / "meson-info").mkdir(parents=True, exist_ok=True)
    (folder / "build" / "meson-info" / "intro-install_plan.json").write_text(json.dumps(plan))
    return folder


def dist_info(site: Path, name: str, *files: str) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "RECORD").write_text("".join(f"{path},,\n" for path in (*files, f"{folder.name}/METADATA")))


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


@pytest.mark.parametrize("style", STYLES)
def test_code_data_and_compiled_modules_of_every_style_ship_in_site_packages(
    made: Path, site: Path, project: Path, style: str
) -> None:
    dist_info(site, "demo", *STYLES[style])
    for name, text in STYLES[style].items():
        (site / name).write_text(text.format(project=project))
    scanned = scan(str(made))
    demo = package(scanned, "demo")
    assert (demo.origin, demo.version) == ("local", "1.0")
    code = {f"{SITE}/demo/{name}" for name in ("__init__.py", "_core.so", "templates/page.html")}
    assert {path for path in paths(demo) if "dist-info" not in path} == code
    assert file(scanned, f"{SITE}/demo/_core.so").source == str(project / "src" / "demo" / "_core.so")
    assert {f"{SITE}/{name}" for name in STYLES[style]} <= set(reasons(scanned))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["pip", "uv"])
def test_an_editable_install_by_pip_and_by_uv_ships_its_code(tmp_path: Path, by: By) -> None:
    code = tmp_path / "project" / "src" / "demo"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / "project" / "backend.py").write_text(BACKEND)
    (tmp_path / "project" / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "demo"\nversion = "1.0"\n'
    )
    environment = install(venv(tmp_path / "env", by=by), "--editable", tmp_path / "project", by=by)
    scanned = scan(str(environment))
    assert package(scanned, "demo").origin == "local"
    assert file(scanned, f"{SITE}/demo/__init__.py").source == str(code / "__init__.py")
    assert f"{SITE}/demo.pth" not in shipped(scanned)


def test_an_edit_changes_the_local_package_alone(made: Path, site: Path, project: Path) -> None:
    dist_info(site, "demo", "demo.pth")
    (site / "demo.pth").write_text(f"{project}/src\n")
    before = scan(str(made))
    (project / "src" / "demo" / "__init__.py").write_text("VALUE = 2\n")
    after = scan(str(made))
    changed = [each.name for each, was in zip(after.packages, before.packages, strict=True) if each != was]
    assert changed == ["demo"]


def test_a_legacy_egg_link_ships_the_project_with_its_metadata(made: Path, site: Path, tmp_path: Path) -> None:
    project = tmp_path / "old"
    (project / "old").mkdir(parents=True)
    (project / "old" / "__init__.py").write_text("")
    (project / "setup.py").write_text("")
    (project / "tests").mkdir()
    (project / "tests" / "test_old.py").write_text("")
    (project / "old.egg-info").mkdir()
    (project / "old.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: old\nVersion: 0.3\n")
    (site / "old.egg-link").write_text(f"{project}\n.")
    (site / "easy-install.pth").write_text(f"{project}\n")
    scanned = scan(str(made))
    old = package(scanned, "old")
    assert (old.origin, old.version) == ("local", "0.3")
    assert paths(old) == {f"{SITE}/old/__init__.py", f"{SITE}/old.egg-info/PKG-INFO"}


def test_a_folder_of_a_pth_file_without_metadata_is_a_local_package_of_its_own(
    made: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared-code").mkdir()
    (tmp_path / "shared-code" / "common.py").write_text("")
    (site / "team.pth").write_text(str(tmp_path / "shared-code"))
    assert paths(package(scan(str(made)), "shared-code", "local")) == {f"{SITE}/common.py"}


def test_a_pth_file_with_code_or_with_folders_of_the_environment_ships_as_it_is(made: Path, site: Path) -> None:
    (site / "win32").mkdir()
    (site / "win32" / "api.py").write_text("")
    (site / "lines.pth").write_text("# paths\nimport sys; sys.flags\nwin32\n")
    scanned = scan(str(made))
    assert {f"{SITE}/lines.pth", f"{SITE}/win32/api.py"} == paths(package(scanned, "unowned"))


def test_a_pth_file_that_names_a_missing_folder_is_a_finding(made: Path, site: Path, tmp_path: Path) -> None:
    (site / "gone.pth").write_text(f"{tmp_path}/nowhere\n")
    (found,) = findings(scan(str(made)), "editable")
    assert f"gone.pth: cannot ship its code; no such file or folder: {tmp_path}/nowhere" in found.message


def test_a_pth_file_that_names_a_home_ships_nothing_of_it(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "diary.py").write_text("")
    (site / "home.pth").write_text(f"{tmp_path}\n")
    scanned = scan(str(made))
    assert not [path for path in shipped(scanned) if path.endswith("diary.py")]
    assert [finding.severity for finding in findings(scanned, "editable")] == ["error"]


def test_a_link_to_a_project_ships_what_it_leads_to(made: Path, site: Path, project: Path) -> None:
    dist_info(site, "demo")
    (site / "demo").symlink_to(project / "src" / "demo")
    scanned = scan(str(made))
    assert file(scanned, f"{SITE}/demo/templates/page.html").source == str(
        project / "src" / "demo" / "templates" / "page.html"
    )
    assert package(scanned, "demo").origin == "local"


def test_a_project_with_a_link_to_itself_ends(made: Path, site: Path, project: Path) -> None:
    dist_info(site, "demo", "demo.pth")
    (site / "demo.pth").write_text(f"{project}/src\n")
    loop = project / "src" / "demo" / "loop"
    loop.symlink_to(project / "src")
    try:
        assert file(scan(str(made)), f"{SITE}/demo/loop").target == ".."
    finally:
        loop.unlink()


def test_what_no_project_ships_stays(made: Path, site: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    kept = {"code.py", "config.yaml"}
    never = [
        ".git/config",
        "node_modules/a.js",
        ".venv/pyvenv.cfg",
        ".env",
        "__pycache__/code.pyc",
        "x.egg-info/PKG-INFO",
    ]
    for name in (*kept, *never):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("x")
    (site / "code.pth").write_text(str(code))
    assert {os.path.basename(path) for path in paths(package(scan(str(made)), "code"))} == kept


def test_every_module_that_a_path_makes_importable_ships_whatever_it_is_called(
    made: Path, site: Path, tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    kept = ["app.py", "utils/__init__.py", "tools/run.py", "tasks.py", "docs/__init__.py"]
    noise = [
        "tests/test_app.py",
        "build/lib/app.py",
        "dist/app.py",
        "setup.py",
        "conftest.py",
        "data/table.csv",
        "notes.md",
    ]
    write(root, "pyproject.toml", *kept, *noise)
    dist_info(site, "docs", "docs.pth")
    (site / "docs.pth").write_text(f"{root}\n")
    scanned = scan(str(made))
    found = {path.removeprefix(f"{SITE}/") for path in paths(package(scanned, "docs"))}
    assert {path for path in found if "dist-info" not in path} == set(kept)
    assert reasons(scanned)[f"{root}/tests"] == "beside the project's code"


def test_lamellaignore_excludes_files_of_an_editable_install_and_gitignore_does_not(
    made: Path, site: Path, tmp_path: Path
) -> None:
    root = tmp_path / "demo"
    write(root, "src/demo/__init__.py", "src/demo/_version.py", "src/demo/data/big.csv", "src/demo/inner/secret.txt")
    write(root, "src/single.py", "src/demo/inner/kept.txt")
    (root / "pyproject.toml").write_text("")
    (root / ".gitignore").write_text("_version.py\n")
    (root / ".lamellaignore").write_text("*.csv\nsingle.py\n")
    (root / "src" / "demo" / "inner" / ".lamellaignore").write_text("secret.txt\n")
    dist_info(site, "demo", "__editable__.demo-1.0.pth")
    finder = f"MAPPING = {{'demo': '{root}/src/demo', 'single': '{root}/src/single'}}\n"
    for style in (
        {"__editable__.demo-1.0.pth": f"{root}/src\n"},
        {"__editable__.demo-1.0.pth": "import _demo_finder", "_demo_finder.py": finder},
    ):
        for name, text in style.items():
            (site / name).write_text(text)
        scanned = scan(str(made))
        found = {path.removeprefix(f"{SITE}/") for path in paths(package(scanned, "demo"))}
        assert {path for path in found if "dist-info" not in path} == {
            "demo/__init__.py",
            "demo/_version.py",
            "demo/inner/kept.txt",
        }
        assert reasons(scanned)[f"{root}/src/single.py"] == "ignored by .lamellaignore"


@pytest.mark.slow
def test_an_editable_namespace_package_joins_the_installed_part_of_its_namespace(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(root, "src/acme/local/__init__.py", "pyproject.toml")
    environment = install(
        venv(tmp_path / "env"), wheel(tmp_path, "acme-other", "1.0", {"acme/other/__init__.py": "VALUE = 1\n"})
    )
    site = environment / SITE
    dist_info(site, "acme_local", "__editable__.acme_local-1.0.pth")
    (site / "__editable__.acme_local-1.0.pth").write_text(
        "import __editable___acme_local_1_0_finder; __editable___acme_local_1_0_finder.install()"
    )
    (site / "__editable___acme_local_1_0_finder.py").write_text(
        f"MAPPING: dict[str, str] = {{'acme.local': '{root}/src/acme/local'}}\n"
        f"NAMESPACES: dict[str, list[str]] = {{'acme': ['{root}/src/acme']}}\n"
    )
    scanned = scan(str(environment))
    assert f"{SITE}/acme/local/__init__.py" in paths(package(scanned, "acme-local", "local"))
    assert f"{SITE}/acme/other/__init__.py" in paths(package(scanned, "acme-other"))


def test_lines_of_a_pth_file_that_a_node_needs_ship_without_those_that_name_this_machine(
    made: Path, site: Path, tmp_path: Path
) -> None:
    write(tmp_path / "outside", "elsewhere.py")
    write(site, "ineggs/foo-1.0.egg/foo.py")
    (site / "easy-install.pth").write_text(
        f"# eggs\n./ineggs/foo-1.0.egg\n{tmp_path}/outside\nimport sys; sys.flags\n{tmp_path}/gone\n"
    )
    scanned = scan(str(made))
    pth = file(scanned, f"{SITE}/easy-install.pth")
    with open(pth.source, encoding="utf-8") as content:
        assert content.read() == "./ineggs/foo-1.0.egg\nimport sys; sys.flags\n"
    assert {f"{SITE}/elsewhere.py", f"{SITE}/ineggs/foo-1.0.egg/foo.py"} <= shipped(scanned)
    (found,) = findings(scanned, "editable")
    assert f"no such file or folder: {tmp_path}/gone" in found.message


def test_a_pth_file_whose_package_recorded_it_is_not_said_to_be_patched(made: Path, site: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside", "elsewhere.py")
    dist_info(site, "demo")
    (site / "demo-1.0.dist-info" / "RECORD").write_text(
        "demo.pth,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
    )
    (site / "demo.pth").write_text(f"{tmp_path}/outside\nimport sys\n")
    scanned = scan(str(made))
    assert {f"{SITE}/demo.pth", f"{SITE}/elsewhere.py"} <= paths(package(scanned, "demo"))
    assert not findings(scanned, "patched")


@pytest.mark.slow
def test_an_ordinary_wheel_is_not_local(tmp_path: Path) -> None:
    environment = install(venv(tmp_path / "env"), wheel(tmp_path, "plain", "1.0", {"plain.py": ""}))
    assert package(scan(str(environment)), "plain").origin == "pypi"


def test_each_entry_of_a_mapping_ships_wherever_a_part_of_its_package_is(
    made: Path, site: Path, tmp_path: Path
) -> None:
    """setuptools' `package-dir`, and a module whose file has another name."""
    root = tmp_path / "mapped"
    write(root, "src/mapp/__init__.py", "src/mapp/inner/__init__.py", "other/sub/__init__.py", "other/sub/deep.py")
    write(root, "implementation.py", "built/x.cpython-311-x86_64-linux-gnu.so", "pyproject.toml")
    mapping = {
        "mapp": f"{root}/src/mapp",
        "mapp.inner": f"{root}/src/mapp/inner",
        "mapp.sub": f"{root}/other/sub",
        "mapp.core": f"{root}/built/x",
        "single": f"{root}/implementation.py",
    }
    dist_info(site, "mapped", "__editable__.mapped-1.0.pth", "_finder.py")
    (site / "__editable__.mapped-1.0.pth").write_text("import _finder; _finder.install()")
    (site / "_finder.py").write_text(f"MAPPING = {mapping!r}\nNAMESPACES = {{}}\n")
    scanned = scan(str(made))
    modules = ["mapp/__init__.py", "mapp/inner/__init__.py", "mapp/sub/__init__.py", "mapp/sub/deep.py"]
    modules += ["mapp/core.cpython-311-x86_64-linux-gnu.so", "single.py"]
    assert {f"{SITE}/{name}" for name in modules} == {
        path for path in paths(package(scanned, "mapped")) if "dist-info" not in path
    }
    assert scanned.findings == ()


@pytest.mark.parametrize("where", ["line", "module"])
def test_folder_that_an_unknown_finder_names_is_a_finding(made: Path, site: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "code"
    write(folder, "hidden.py")
    code = f"import sys; sys.path.insert(0, {str(folder)!r})"
    (site / "own.pth").write_text(code if where == "line" else "import _own")
    (site / "_own.py").write_text("" if where == "line" else code)
    (found,) = findings(scan(str(made)), "editable")
    assert found.message == (
        f"own.pth: its code names {folder}, from which nothing ships; reinstall that project without -e, or ship the "
        "folder with --local or --include"
    )
    assert f"{SITE}/own.pth" in shipped(scan(str(made)))


def test_missing_build_folder_of_meson_is_a_finding(made: Path, site: Path, project: Path) -> None:
    for name, text in STYLES["meson-python"].items():
        (site / name).write_text(text.format(project=project))
    (project / "build/meson-info/intro-install_plan.json").unlink()
    (found,) = findings(scan(str(made)), "editable")
    assert f"demo-editable.pth: its code names {project}/build" in found.message


def test_script_of_a_project_in_development_mode_is_its_own(made: Path, site: Path, tmp_path: Path) -> None:
    root = tmp_path / "demo"
    write(root, "demo.py", "setup.py", "demo.egg-info/SOURCES.txt")
    (root / "demo.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (root / "demo.egg-info/entry_points.txt").write_text("[console_scripts]\ndemo-run = demo:main\n")
    (site / "demo.egg-link").write_text(f"{root}\n.")
    (site / "easy-install.pth").write_text(f"{root}\n")
    (made / "bin/demo-run").write_text(f"#!{made}/bin/python\n")
    scanned = scan(str(made))
    (made / "bin/demo-run").unlink()
    assert {"bin/demo-run", f"{SITE}/demo.py", f"{SITE}/demo.egg-info/PKG-INFO"} <= paths(package(scanned, "demo"))
    assert scanned.findings == ()
