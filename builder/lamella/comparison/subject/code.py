"""The local code of a comparison: a small package that every workflow carries beside the environment."""

from __future__ import annotations

import os

from lamella.comparison.subject.changes import write

PACKAGE = "compared_code"
FILES = 20
_LINES = 100


def make_code(folder: str) -> None:
    """Write the package into `folder`."""
    package = os.path.join(folder, PACKAGE)
    os.makedirs(package)
    for number in range(FILES):
        lines = "".join(f"VALUE_{line} = {number * _LINES + line}\n" for line in range(_LINES))
        write(os.path.join(package, f"module_{number}.py"), lines.encode())
    edit(folder, 0)


def edit(folder: str, number: int) -> None:
    """Set the one line that tells one edit of the package from another."""
    write(os.path.join(folder, PACKAGE, "__init__.py"), f"EDIT = {number}\n".encode())
