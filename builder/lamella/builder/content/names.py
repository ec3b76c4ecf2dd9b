"""Find files whose names a node refuses to unpack, since readers of archives and file systems differ about them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.errors import CannotBuild
from lamella.layers.tar.reader import MAX_DEPTH, MAX_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.environment import Package


def is_whiteout(path: str) -> bool:
    """Whether engines would delete a file instead of writing this one. Source: OCI image specification, layer.md."""
    return ".wh." in path and ("/.wh." in path or path.startswith(".wh."))


def refusal(path: str, image_prefix: str = "") -> str:
    """Return the reason why `path`, relative to the prefix, cannot be in an image; empty for a usual path."""
    if is_whiteout(path):
        problem = "in which names that begin with '.wh.' delete files"
    elif not path.isascii() and not _is_utf_8(path):
        problem = "in which names are UTF-8"
    elif path.count("/") + image_prefix.count("/") >= MAX_DEPTH:
        problem = f"which is less than {MAX_DEPTH} folders deep"
    elif len(os.fsencode(path)) + len(os.fsencode(image_prefix)) > MAX_PATH:
        problem = f"in which a path has at most {MAX_PATH} bytes"
    else:
        return ""
    return f"cannot be in an image, {problem}; rename it or leave it out"


def check_names(packages: Iterable[Package], image_prefix: str) -> None:
    """Raise `CannotBuild` for the first file that no node would unpack."""
    for package in packages:
        for file in package.files:
            if problem := refusal(file.path, image_prefix):
                raise CannotBuild(f"{file.path} of {package.name}: {problem}")


def _is_utf_8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
