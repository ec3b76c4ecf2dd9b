"""Projects on this disk whose wheels can be built without the network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.installed import wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BACKEND = """
import glob, os, shutil
def build_wheel(folder, config_settings=None, metadata_directory=None):
    {first}
    (made,) = glob.glob("*.whl")
    return os.path.basename(shutil.copy(made, folder))
"""
_SETTINGS = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "{name}"
version = "1.0"
"""


def project(
    root: Path, name: str, files: Mapping[str, str | bytes], *, entry_points: str = "", first: str = "pass"
) -> Path:
    """A project whose backend runs the statement `first`, and gives the wheel of `files`; its code is in `src`."""
    wheel(root, name, files=files, entry_points=entry_points)
    (root / "pyproject.toml").write_text(_SETTINGS.format(name=name))
    (root / "backend.py").write_text(_BACKEND.format(first=first))
    (root / "src" / name).mkdir(parents=True)
    (root / "src" / name / "__init__.py").write_text("as it is on disk\n")
    return root


def editable(site: Path, root: Path, name: str) -> None:
    """Installs it as `pip install -e` does, with a `.pth` file."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (site / f"{name}.pth").write_text(f"{root}/src\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": root.as_uri(), "dir_info": {"editable": True}}))
    (info / "RECORD").write_text(
        f"{name}.pth,,\n" + "".join(f"{info.name}/{each},,\n" for each in ("METADATA", "RECORD"))
    )
