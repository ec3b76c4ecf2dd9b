"""Each kind of environment resolves modules, metadata and programs on a node as it does here, without a warning.

The same probe asks the source's Python, the Python of a `lamella run`, and that of an export. The differences that
are allowed are those of docs/reference/scan.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from support import probe
from support.conda import SHORT, conda_environment, conda_package, python_of_the_run
from support.engines import missing
from support.installed import base_python, install, uv, venv, wheel
from support.once import once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from support.installed import By
    from support.once import Lamella

SYSTEM_PYTHON = "/usr/bin/python3"
POINTS = "[console_scripts]\n{0} = {0}:main\n[gui_scripts]\n{0}-gui = {0}:main\n[plugins]\none = {0}.deep:value\n"
MAIN = "def main():\n    import sys\n    print('{0} 1.0', *sys.argv[1:])\n"
SITES = re.compile(r"^(local/)?lib/python3(\.\d+)?/(site|dist)-packages/")

# Documented in docs/reference/scan.md, "Differences on a node".
STDLIB_TESTS = r"(test|_?test\w*|idlelib\.idle_test|lib2to3\.tests|unittest\.test|distutils\.tests|sqlite3\.test|ctypes\.test|tkinter\.test)(\..*)?"
INSTALLERS = r"_virtualenv|__editable__\w*|_editable_\w+|_\w+_editable_loader|_finder"
NOT_CODE = r"setup|conftest|tests?|docs?|build|dist"
PROGRAMS = r"python.*|(de)?activate.*|Activate\.ps1|pip[\d.]*|easy_install.*|pydoc.*|idle.*|2to3.*|(lamella|conda)-unpack|.*-config"


def files(name: str) -> dict[str, str | bytes]:
    """A package with a subpackage, a module, data and a script."""
    return {
        f"{name}/__init__.py": MAIN.format(name),
        f"{name}/deep/__init__.py": "value = 1\n",
        f"{name}/deep/module.py": "",
        f"{name}/data.txt": "data",
        f"{{data}}/scripts/{name}-script": f"#!python\nprint('{name}-script')\n",
        f"{{data}}/data/share/{name}.txt": "data",
    }


def wheels(folder: Path, *names: str) -> list[Path]:
    return [wheel(folder, name, files=files(name), entry_points=POINTS.format(name)) for name in names]


def filled(prefix: Path, folder: Path, *, by: By = "uv") -> Path:
    """Install two packages."""
    return executable(install(prefix, *wheels(folder, "alpha", "beta"), by=by))


def executable(prefix: Path) -> Path:
    """Make scripts of wheels executable, as they are on a node: pip and installer leave the wheel's own mode."""
    for name in ("alpha", "beta"):
        (prefix / f"bin/{name}-script").chmod(0o755)
    return prefix


def ask(command: Sequence[object], settings: Mapping[str, str], folder: Path) -> Any:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))
    }
    done = subprocess.run(
        list(map(str, command)), env={**clean, **settings}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trapped(folder: Path) -> Path:
    """A home on the node with packages of its user, under the names of the environment's."""
    site = folder / f".local/lib/python{SHORT}/site-packages"
    site.mkdir(parents=True)
    for name in ("alpha", "beta", "gamma"):
        (site / f"{name}.py").write_text("raise SystemExit('the package of a user of the node')\n")
    return folder


def differences(
    lamella: Lamella,
    prefix: Path | str,
    tmp_path: Path,
    *,
    python: str = "",
    options: Sequence[object] = ("--no-local",),
    node_home: Path | None = None,
    **settings: str,
) -> list[str]:
    """What the environment at `prefix`, asked with `settings`, answers otherwise in a `run` and in an export."""
    work, empty = tmp_path / "work", tmp_path / "no-home"
    work.mkdir()
    empty.mkdir()
    reference, exported = f"oci:{tmp_path}/layout:v1", tmp_path / "exported"
    pushed = lamella("push", reference, prefix, *options, **settings)
    assert pushed.returncode == 0, pushed.stderr
    assert lamella("export", reference, exported).returncode == 0
    home = {"HOME": str(node_home or empty)}
    here = {"HOME": str(empty), **settings}
    script = probe.__file__
    sides: dict[str, tuple[list[object], dict[str, str]]] = {
        "run": ([sys.executable, "-m", "lamella.cli", "run", reference, "--", "python", script], home),
        "export": ([exported / "bin/python", script], home),
    }
    store = {"LAMELLA_STORE": str(tmp_path / "store"), "LAMELLA_CACHE": str(tmp_path / "cache")}
    source: list[object] = [python or f"{prefix}/bin/python", script]
    named = [ask(source, here, work), *(ask(command, store | own, work) for command, own in sides.values())]
    wanted = {kind: sorted({name for each in named for name in each[kind]}) for kind in ("modules", "programs")}
    wanted["programs"] = [name for name in wanted["programs"] if not re.fullmatch(PROGRAMS, name)]
    if "PROBE_BIN" in settings:
        wanted["programs"] = [name for name in wanted["programs"] if name in named[1]["programs"]]
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps(wanted))
    expected = ask([*source, questions], here, work)
    assert expected["distributions"]
    scanned = json.loads(lamella("scan", prefix, *options, "--json", **settings).stdout)
    # A machine's own Python can have modules that its administrator put there.
    strays = "unowned" if "PROBE_BIN" in settings else ""
    found = [
        f"{each['severity']}: {each['message']}"
        for each in scanned["findings"]
        if each["severity"] != "note" and each["kind"] != strays
    ]
    for side, (command, own) in sides.items():
        answered = ask([*command, questions], store | own, work)
        found += [f"{side}: {each}" for each in compared(expected, answered)]
    print(*found, sep="\n")
    return found


def compared(source: dict[str, Any], node: dict[str, Any]) -> Iterator[str]:
    for kind in ("distributions", "programs"):
        for name in sorted({*source[kind], *node[kind]}):
            if source[kind].get(name) != node[kind].get(name):
                yield f"{kind}: {name}: {source[kind].get(name)} here, {node[kind].get(name)} there"
    here, there = code(source["modules"]), code(node["modules"])
    for name in sorted({*here, *there}):
        if (
            re.fullmatch(STDLIB_TESTS, name)
            or re.fullmatch(INSTALLERS, name)
            or re.fullmatch(NOT_CODE, name.partition(".")[0])
        ):
            continue
        before, after = here.get(name), there.get(name)
        if before is None or after is None:
            yield f"module {name}: {before} here, {after} there"
        elif "elsewhere" in after[0] or (
            "elsewhere" not in before[0] and SITES.sub("", before[0]) != SITES.sub("", after[0])
        ):
            yield f"module {name}: at {before[0]} here, at {after[0]} there"
        elif before[0].endswith(".py") and before[1] != after[1] and not name.startswith("_sysconfigdata"):
            yield f"module {name}: other content there: {after[0]}"


def code(modules: dict[str, list[str]]) -> dict[str, list[str]]:
    """Modules and packages, without folders that hold none: each folder on the path is a namespace."""
    real = {name for name, (where, _) in modules.items() if where not in ("None", "namespace")}
    above = {name[: match.start()] for name in real for match in re.finditer(r"\.", name)}
    return {name: said for name, said in modules.items() if name in real | above}


@pytest.mark.parametrize("by", ["pip", "uv"])
def test_venv(lamella: Lamella, tmp_path: Path, by: By) -> None:
    # Once with the whole standard library.
    prefix = filled(venv(tmp_path / "env", by=by, python=base_python() if by == "pip" else ""), tmp_path, by=by)
    assert differences(lamella, prefix, tmp_path, node_home=trapped(tmp_path / "home")) == []


def test_venv_with_linked_folders(lamella: Lamella, tmp_path: Path) -> None:
    prefix = filled(venv(tmp_path / "env"), tmp_path)
    (prefix / "lib64").unlink(missing_ok=True)
    (prefix / "usr").mkdir()
    (prefix / "lib").rename(prefix / "usr/lib")
    (prefix / "lib").symlink_to("usr/lib")
    site = prefix / f"lib/python{SHORT}/site-packages"
    site.rename(tmp_path / "packages")
    site.symlink_to(tmp_path / "packages")
    assert differences(lamella, prefix, tmp_path, node_home=trapped(tmp_path / "home")) == []


def poetrys(folder: Path, prefix: Path) -> None:
    """A project as `poetry install` leaves it: records and RECORD rows by absolute path, a `.pth` file."""
    write(folder / "src/gamma", files("gamma"))
    site = prefix / f"lib/python{SHORT}/site-packages"
    info = site / "gamma-1.0.dist-info"
    info.mkdir()
    (site / "gamma.pth").write_text(f"{folder}/src\n")
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: gamma\nVersion: 1.0\nRequires-Dist: alpha\n")
    (info / "entry_points.txt").write_text(POINTS.format("gamma"))
    (info / "INSTALLER").write_text("poetry 2.5.1")
    (info / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}, "url": folder.as_uri()}))
    for name in ("gamma", "gamma-gui"):
        script = prefix / "bin" / name
        script.write_text(
            f"#!{prefix}/bin/python\nimport sys\nfrom gamma import main\n\nif __name__ == '__main__':\n    sys.exit(main())\n"
        )
        script.chmod(0o755)
    rows = [site / "gamma.pth", prefix / "bin/gamma", prefix / "bin/gamma-gui", *info.iterdir()]
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in rows) + f"{info}/RECORD,,\n")


def write(folder: Path, content: Mapping[str, str | bytes]) -> None:
    """Write a package's code to `folder`, without the parts of a wheel."""
    for name, text in content.items():
        if "{data}" not in name:
            path = folder.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))


BACKENDS = {
    "setuptools": ("setuptools", "setuptools.build_meta"),
    "hatchling": ("hatchling", "hatchling.build"),
    "pdm": ("pdm-backend", "pdm.backend"),
    "poetry": ("poetry-core", "poetry.core.masonry.api"),
    "flit": ("flit-core", "flit_core.buildapi"),
}
STYLES = {
    "setuptools": "",
    "setuptools, a finder": """
        [tool.setuptools]
        packages = ["gamma", "gamma.deep", "gamma.part", "delta.inner"]
        package-dir = {"gamma" = "src/gamma", "gamma.part" = "other/part", "delta.inner" = "other/inner"}
        """,
    "hatchling": "",
    "hatchling, exact": "\n[tool.hatch.build]\ndev-mode-exact = true\n",
    "pdm": "",
    "pdm, editables": '\n[tool.pdm.build]\neditable-backend = "editables"\n',
    "poetry": '\n[tool.poetry]\npackages = [{include = "gamma", from = "src"}]\n',
    "flit": "",
}


@pytest.fixture(scope="session")
def backends(shared: Path) -> Path:
    """An environment with the build backends that this machine installs."""
    prefix = shared / "backends"
    with once(prefix) as mine:
        if mine:
            packages = [
                "setuptools>=64",
                "editables",
                "installer",
                *(name for name, _ in BACKENDS.values() if name != "setuptools"),
            ]
            python = str(venv(prefix) / "bin/python")
            subprocess.run([uv(), "pip", "install", "--quiet", "--python", python, *packages], check=True)
    return prefix


INSTALL = """
import sys, sysconfig
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
prefix, tool = sys.argv[1:3]
folders = dict.fromkeys(("base", "platbase", "installed_base"), prefix)
paths = sysconfig.get_paths("posix_prefix", vars=folders)
for wheel in sys.argv[3:]:
    with WheelFile.open(wheel) as source:
        target = SchemeDictionaryDestination(paths, interpreter=f"{prefix}/bin/python", script_kind="posix")
        install(source, target, additional_metadata={"INSTALLER": tool.encode()})
"""


@pytest.mark.parametrize("tool", ["poetry 2.5.1", "pdm"])
def test_venv_by_poetry_and_by_pdm(lamella: Lamella, backends: Path, tmp_path: Path, tool: str) -> None:
    """Both install wheels with pypa/installer. Poetry installs the project itself, pdm with the project's backend."""
    prefix = venv(tmp_path / "env")
    command = [f"{backends}/bin/python", "-c", INSTALL, str(prefix), tool]
    subprocess.run([*command, *map(str, wheels(tmp_path, "alpha", "beta"))], check=True)
    executable(prefix)
    if tool.startswith("poetry"):
        poetrys(tmp_path / "project", prefix)
    assert differences(lamella, prefix, tmp_path, node_home=trapped(tmp_path / "home")) == []


@pytest.mark.parametrize("style", STYLES)
def test_editable_install(lamella: Lamella, backends: Path, tmp_path: Path, style: str) -> None:
    root = tmp_path / "project"
    write(root / "src/gamma", files("gamma"))
    for name in ("other/part/__init__.py", "other/part/module.py", "other/inner/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    _, backend = BACKENDS[style.partition(",")[0]]
    project = '[project]\nname = "gamma"\nversion = "1.0"\ndescription = "x"\nscripts = {gamma = "gamma:main"}\n'
    system = f'[build-system]\nrequires = []\nbuild-backend = "{backend}"\n'
    (root / "pyproject.toml").write_text(f"{system}{project}{textwrap.dedent(STYLES[style])}")
    # The backends are in the environment itself: without an isolated build, none is downloaded again.
    prefix = venv(tmp_path / "env")
    (prefix / f"lib/python{SHORT}/site-packages/backends.pth").write_text(
        f"{backends}/lib/python{SHORT}/site-packages\n"
    )
    install(prefix, "--editable", root, by="uv", options=["--no-build-isolation"])
    (prefix / f"lib/python{SHORT}/site-packages/backends.pth").unlink()
    if "editables" in style or "exact" in style:
        install(prefix, "editables", by="uv", options=["--no-offline"])
    assert differences(lamella, prefix, tmp_path, node_home=trapped(tmp_path / "home")) == []


def test_project_in_development_mode_and_egg(lamella: Lamella, tmp_path: Path) -> None:
    """`setup.py develop` and `setup.py install`, as setuptools leaves them."""
    prefix = filled(venv(tmp_path / "env"), tmp_path)
    site = prefix / f"lib/python{SHORT}/site-packages"
    root = tmp_path / "project"
    write(root / "gamma", files("gamma"))
    (root / "setup.py").write_text("")
    for folder, name, points in (
        (root / "gamma.egg-info", "gamma", POINTS.format("gamma")),
        (site / "delta-1.0.egg/EGG-INFO", "delta", ""),
    ):
        folder.mkdir(parents=True)
        (folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)
    (site / "delta-1.0.egg/delta.py").write_text("")
    (site / "gamma.egg-link").write_text(f"{root}\n.")
    (site / "easy-install.pth").write_text(f"{root}\n./delta-1.0.egg\n")
    script = prefix / "bin/gamma"
    script.write_text(
        f"#!{prefix}/bin/python\nfrom importlib.metadata import distribution\n"
        "(point,) = [each for each in distribution('gamma').entry_points if each.name == 'gamma']\npoint.load()()\n"
    )
    script.chmod(0o755)
    assert differences(lamella, prefix, tmp_path, node_home=trapped(tmp_path / "home")) == []


def test_folders_zip_files_and_eggs_of_pythonpath(lamella: Lamella, tmp_path: Path) -> None:
    prefix = filled(venv(tmp_path / "env"), tmp_path)
    target = tmp_path / "target"
    command = [uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(prefix / "bin/python")]
    subprocess.run([*command, "--target", str(target), *map(str, wheels(tmp_path, "gamma"))], check=True)
    with zipfile.ZipFile(tmp_path / "loose.zip", "w") as archive:
        archive.writestr("loose.py", "")
    with zipfile.ZipFile(tmp_path / "epsilon-1.0-py3.egg", "w") as archive:
        archive.writestr("epsilon.py", "")
        archive.writestr("EGG-INFO/PKG-INFO", "Metadata-Version: 2.1\nName: epsilon\nVersion: 1.0\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/mine.py").write_text("")
    path = ":".join(str(tmp_path / name) for name in ("target", "loose.zip", "epsilon-1.0-py3.egg", "code"))
    found = differences(
        lamella,
        prefix,
        tmp_path,
        options=[],
        node_home=trapped(tmp_path / "home"),
        PYTHONPATH=path,
        PROBE_BIN=f"{prefix}/bin:{target}/bin",
    )
    assert found == []


def test_conda_environment_with_pip_on_top(lamella: Lamella, tmp_path: Path, shared: Path) -> None:
    channel = tmp_path / "channel"
    python_of_the_run(channel, shared)
    pure = {
        "site-packages/pure/__init__.py": MAIN.format("pure"),
        "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
        "site-packages/pure-1.0.dist-info/INSTALLER": "conda\n",
        "site-packages/pure-1.0.dist-info/entry_points.txt": "[console_scripts]\npure-tool = pure:main\n",
    }
    conda_package(channel, "pure", pure, noarch="python", depends=["python"], entry_points=["pure-tool = pure:main"])
    prefix = filled(conda_environment(tmp_path / "env", channel, ["python", "pure"]), tmp_path, by="pip")
    assert differences(lamella, prefix, tmp_path) == []


def test_system_python_with_packages_of_its_user(lamella: Lamella, tmp_path: Path) -> None:
    if not os.path.exists(SYSTEM_PYTHON):
        missing(f"{SYSTEM_PYTHON} is not here: apt-get install python3")
    home = tmp_path / "user"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    short = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    site = home / f".local/lib/python{short}/site-packages"
    command = [uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", SYSTEM_PYTHON]
    subprocess.run(
        [*command, "--break-system-packages", "--target", site, *wheels(tmp_path, "alpha", "beta")], check=True
    )
    (site / ".lock").unlink()
    (site / "bin").rename(home / ".local/bin")
    for record in site.glob("*.dist-info/RECORD"):
        record.write_text(re.sub(r"(?m)^(bin|share)/", r"../../../\1/", record.read_text()))
    (site / "share").rename(home / ".local/share")
    found = differences(
        lamella,
        "/usr",
        tmp_path,
        python=SYSTEM_PYTHON,
        HOME=str(home),
        PROBE_BIN=f"{home}/.local/bin:/usr/local/bin:/usr/bin",
    )
    assert found == []


def test_venv_with_system_packages(lamella: Lamella, tmp_path: Path) -> None:
    if not os.path.exists(SYSTEM_PYTHON):
        missing(f"{SYSTEM_PYTHON} is not here: apt-get install python3")
    prefix = filled(venv(tmp_path / "env", python=SYSTEM_PYTHON, options=["--system-site-packages"]), tmp_path)
    assert differences(lamella, prefix, tmp_path, PROBE_BIN=f"{prefix}/bin:/usr/bin") == []
