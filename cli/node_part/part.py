"""The node's part of Lamella: `lamella.layers`, the command, and the pure-Python packages that they import.

Modules that build an environment, and the packages that only those import, have stand-ins that raise `Unsupported`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
REQUIRED = ("urllib3", "cachetools")
"""Packages that a node imports on every Python. zstandard is compiled, and treated by itself."""
OLDEST = "3.10"
ABSENT = ("lamella/builder", "oras", "shtab")
"""Packages that have a stand-in: the laptop's, and those of verbs that a node does not need."""
_HERE = {"lamella/layers": ROOT / "layers", "lamella/cli": ROOT / "cli"}


def modules() -> dict[str, bytes]:
    """Return this project's modules for a node, and the stand-ins for others, by path below site-packages."""
    found = {
        path.relative_to(base).as_posix(): path.read_bytes()
        for package, base in _HERE.items()
        for path in sorted((base / package).rglob("*.py"))
    }
    missing = (STAND_INS / "missing.py").read_bytes()
    return found | {f"{package}/__init__.py": missing for package in ABSENT}


def metadata(requires: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the files of a `.dist-info` that names the version, the licence, and the requirements `requires`."""
    version = project_version()
    lines = ["Metadata-Version: 2.4", "Name: lamella", f"Version: {version}", "License-Expression: Apache-2.0"]
    lines += ["License-File: LICENSE", f"Requires-Python: >={OLDEST}", *(f"Requires-Dist: {each}" for each in requires)]
    folder = f"lamella-{version}.dist-info"
    return {
        f"{folder}/METADATA": "\n".join([*lines, ""]).encode(),
        f"{folder}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }


def project_version() -> str:
    """Return the version in pyproject.toml, by its one line: Python 3.10 has no parser for TOML."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    return next(line for line in lines if line.startswith("version = ")).split('"')[1]


def packages(names: tuple[str, ...], *, python: str = OLDEST, machine: str = "x86_64") -> dict[str, bytes]:
    """Download packages in the versions of requirements-dev.lock; return their files by path below site-packages."""
    with TemporaryDirectory() as folder:
        install(names, folder, python=python, machine=machine)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def install(names: tuple[str, ...], target: str, *, python: str, machine: str, glibc: str = "2_17") -> None:
    """Install packages for another Python and machine into a folder. No dependencies: `names` are all.

    By default for the oldest glibc that wheels of all Pythons know, so that one file runs on every distribution.
    """
    command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps", "--no-config"]
    command += ["--only-binary", ":all:", "--link-mode", "copy", "--constraint", str(ROOT / "requirements-dev.lock")]
    command += ["--python-version", python, "--python-platform", f"{machine}-manylinux_{glibc}", "--target", target]
    subprocess.run([*command, *names], check=True)
    # uv's own, of an installation that is going on.
    Path(target, ".lock").unlink(missing_ok=True)
