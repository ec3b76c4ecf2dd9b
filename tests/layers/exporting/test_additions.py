"""Files that an export brings beside the environment's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.layers.exporting import additions
from support.relocatable import relocatable
from support.trees import write

if TYPE_CHECKING:
    from pathlib import Path


def test_modules_of_an_export_read_on_python_3_7_and_import_the_standard_library_alone() -> None:
    modules = {member.path: b"".join(member.read()) for member in additions.members("/opt/env", {}, conda=False)}
    for path, source in modules.items():
        if path.endswith(".py"):
            tree = ast.parse(source, feature_version=(3, 7))
            imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            ours = {name for name in imports if name.startswith("lamella.")}
            assert all(f".lamella/lib/{name.replace('.', '/')}.py" in modules for name in ours), path


@pytest.mark.slow
def test_an_export_of_an_environment_with_another_lamella_moves_with_its_own_modules(tmp_path: Path) -> None:
    root = relocatable(tmp_path / "env", "/opt/env", {"where": "/opt/env"})
    for member in additions.members("/opt/env", {}, conda=False):
        if member.target is None:
            write(root, {f"{member.path}{'*' if member.mode & 0o100 else ''}": b"".join(member.read()).decode()})
    site = root / "site"
    write(site, {"lamella/layers/__init__.py": "raise ImportError", "lamella/layers/relocation/__init__.py": ""})
    unpack = "import runpy, sys; site, sys.argv = sys.argv[1], sys.argv[2:]; sys.path.append(site); runpy.run_path(sys.argv[0])"
    subprocess.run([sys.executable, "-c", unpack, site, root / "bin/lamella-unpack"], check=True)
    assert (root / "where").read_text() == str(root)
