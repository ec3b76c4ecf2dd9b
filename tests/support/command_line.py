"""The command, as a user in a folder without code types it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from support.once import Lamella


def command_line(folder: Path, cache: Path) -> Lamella:
    """Run command lines with a store in `folder` and layers of `cache`."""
    nowhere = folder / "nowhere"
    nowhere.mkdir()

    def call(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
        environment |= {"LAMELLA_STORE": str(folder / "store"), "LAMELLA_CACHE": str(cache)} | settings
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=nowhere,
            stdin=subprocess.DEVNULL,
        )

    return call
