"""Make `lamella-node.pyz`: the node's part of Lamella in one file, for any Python from 3.10 on.

    python -m node_part.zipapp dist/lamella-node.pyz

See docs/adr/one-file-for-nodes.md.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from node_part import elf
from node_part.part import REQUIRED, STAND_INS, metadata, modules, packages

MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
"""Versions of CPython with a compiled zstandard. Newer ones have zstd in their standard library."""
_SHEBANG = b"#!/usr/bin/env python3\n"
_TIME = (1980, 1, 2, 0, 0, 0)
"""The time of every file. 1980-01-01 is not a time of a zip archive west of UTC."""


def files() -> dict[str, bytes]:
    """Return the archive's files by path."""
    found = modules() | metadata() | {"__main__.py": (STAND_INS / "main.py").read_bytes()}
    # A namespace package would give way to a folder `lamella` of PYTHONPATH or site-packages that has an __init__.py.
    found["lamella/__init__.py"] = b""
    found["zstandard/__init__.py"] = (STAND_INS / "zstandard.py").read_bytes()
    with ThreadPoolExecutor() as pool:
        # tomli 2.4 has a wheel without compiled code as well; newer Pythons have it in their standard library.
        pure = pool.submit(packages, (*REQUIRED, "tomli"))
        compiled = pool.map(
            _zstandard, *zip(*((each, machine) for machine in MACHINES for each in PYTHONS), strict=True)
        )
        found |= {path: content for path, content in pure.result().items() if _belongs(path)}
        for pair in compiled:
            found |= pair
    return found


def _zstandard(python: str, machine: str) -> dict[str, bytes]:
    """Return zstandard's compiled module for one Python, by the name that stand_ins/zstandard.py looks for."""
    found = packages(("zstandard",), python=python, machine=machine)
    (library,) = (content for path, content in found.items() if path.startswith("zstandard/backend_c."))
    licences = {path: content for path, content in found.items() if "/licenses/" in path}
    return licences | {f"zstandard/backend_c.cpython-{python.replace('.', '')}-{machine}.so": elf.stripped(library)}


def _belongs(path: str) -> bool:
    return path.endswith(".py") or "/licenses/" in path


def write(path: str, content: dict[str, bytes]) -> None:
    """Write the archive, executable; the same content gives the same bytes."""
    folders = {
        f"{'/'.join(parts[:depth])}/"
        for name in content
        if (parts := name.split("/"))
        for depth in range(1, len(parts))
    }
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(_SHEBANG)
        with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=9) as archive:
            # Folders have entries of their own: without, zipimport finds no package that has no __init__.py.
            for name in sorted({*content, *folders}):
                entry = ZipInfo(name, _TIME)
                entry.compress_type = ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = (0o40755 if name.endswith("/") else 0o100644) << 16
                archive.writestr(entry, content.get(name, b""))
    os.chmod(new, 0o755)
    os.replace(new, path)


def main() -> None:
    """Make the file that the command line names."""
    (path,) = sys.argv[1:]
    write(path, files())
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
