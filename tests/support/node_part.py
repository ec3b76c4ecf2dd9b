"""The single file and the image for nodes, each made once a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from node_part.part import project_version
from support.engines import need
from support.once import once

ROOT = Path(__file__).parent.parent.parent


def node_file(shared: Path) -> Path:
    """`lamella-node.pyz`, as `make node-pyz` makes it."""
    made = shared / "node" / "lamella-node.pyz"
    with once(made) as mine:
        if mine:
            make("zipapp", made)
    return made


def node_image(shared: Path) -> str:
    """Reference of the image for nodes, as `make node-image` makes it for this machine, with zstd alone."""
    need("mmdebstrap")
    layout = shared / "node" / "node-image"
    with once(layout) as mine:
        if mine:
            options = ("--machine", os.uname().machine, "--compression", "zstd")
            make("image", layout, *options, LAMELLA_CACHE=str(shared / "cache"))
    return f"oci:{layout}:{project_version()}"


def make(module: str, *arguments: object, **variables: str) -> str:
    """Run one of the modules of `cli/node_part`; what it prints."""
    command = [sys.executable, "-m", f"node_part.{module}", *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(
        command, check=True, cwd=ROOT / "cli", stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
