"""The single file for nodes, made once a run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from support.once import once
from support.pods import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def node_file(shared: Path) -> Path:
    """`lamella-node.pyz`, as `make node-pyz` makes it."""
    made = shared / "node" / "lamella-node.pyz"
    with once(made) as mine:
        if mine:
            make("zipapp", made)
    return made


def make(module: str, *arguments: object) -> str:
    """Run one of the modules of `cli/node_part`; what it prints."""
    command = [sys.executable, "-m", f"node_part.{module}", *map(str, arguments)]
    return subprocess.run(command, check=True, cwd=ROOT / "cli", stdout=subprocess.PIPE, text=True).stdout
