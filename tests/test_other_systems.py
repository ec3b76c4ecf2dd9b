"""The builder on macOS and Windows: it imports and uses nothing there that Linux alone has."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import foreign_trees as trees
from support.other_systems import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SYSTEMS = ("darwin", "win32")
# Modules that Windows lacks, and attributes of os and signal that it lacks and that exist where this is written.
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "spwd", "crypt"}
# What a module may do when it is imported, beyond its functions.
IMPORT_TIME = (ast.If, ast.Try, ast.With, ast.ClassDef)


def sources() -> list[Path]:
    return sorted(
        path
        for room in ("builder/lamella/builder", "layers/lamella/layers", "cli/lamella/cli")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "_compile_worker.py"
    )


def at_import(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported on Windows."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "sys.platform != 'win32'"):
            yield from at_import(node.orelse)
        elif isinstance(node, IMPORT_TIME):
            yield from at_import([each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)])
        else:
            yield node


@pytest.mark.slow
def test_no_module_imports_at_its_start_what_windows_lacks() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in sources()
        for node in at_import(ast.parse(path.read_text()).body)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in MODULES
    }
    assert {each for each in found if not each.startswith(NODE)} == set()


# Rooms of the node, which mount and run on Linux alone. No module of the builder or of a push imports them at its start.
NODE = tuple(
    f"layers/lamella/layers/{room}/" for room in ("agent", "following", "mounting", "running", "pulling", "upkeep")
)


@pytest.mark.slow
@pytest.mark.parametrize("platform", SYSTEMS)
def test_the_whole_public_api_of_the_builder_loads(platform: str) -> None:
    done = run(platform, "import lamella.builder as api\nfor name in api.__all__: getattr(api, name)\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("platform", SYSTEMS)
@pytest.mark.parametrize("verb", ["push", "scan"])
def test_help_is_shown(platform: str, verb: str) -> None:
    done = run(platform, "import sys; from lamella.cli.main import main; sys.exit(main(sys.argv[1:]))", verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: lamella {verb}")


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "kind"), [("darwin", "macos"), ("win32", "windows")])
@pytest.mark.parametrize("verb", ["push", "scan"])
def test_a_verb_without_a_platform_names_the_flag(platform: str, kind: trees.Kind, verb: str, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    reference = [f"oci:{tmp_path}/layout:v1"] if verb == "push" else []
    code = "import sys; from lamella.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(platform, code, verb, *reference, str(made), "--cache", str(tmp_path / "cache"), cwd=str(tmp_path))
    assert "add --platform linux/amd64" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 12
