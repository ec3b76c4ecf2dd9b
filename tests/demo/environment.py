"""The demo's environment: more than 100 real distributions, and one of them a release behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
UPGRADED = "pandas"
BEFORE, AFTER = ("2.3.3", "3.0.0") if sys.version_info >= (3, 14) else ("2.3.2", "2.3.3")
IMPORTED = ("numpy", "pandas", "scipy.linalg", "sklearn", "pyarrow", "dask.dataframe", "distributed", "httpx", "matplotlib.pyplot", "jupyterlab")  # fmt: skip


def make(prefix: Path) -> None:
    """Makes the environment at `prefix`: a venv of the interpreter that runs this, filled by uv."""
    subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
    install(prefix, "--requirements", str(REQUIREMENTS), f"{UPGRADED}=={BEFORE}")


def upgrade(prefix: Path) -> None:
    """Puts the next release of one package into it."""
    install(prefix, "--no-deps", f"{UPGRADED}=={AFTER}")


def install(prefix: Path, *what: str, link: str = "copy") -> None:
    """Installs with uv, with byte code as pip makes it. Copies by default: where cache and environment are on one disk, uv would make hardlinks."""
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--link-mode",
        link,
        "--python",
        prefix / "bin/python",
        *what,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(command, check=True, env=environment)


def tree(prefix: Path) -> tuple[int, int]:
    """Files and their bytes below `prefix`."""
    sizes = [os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(prefix) for name in names]
    return len(sizes), sum(sizes)
