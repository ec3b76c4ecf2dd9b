"""Edits of an environment that is meant to be written: Python must look at its sources.

Byte code ships unchecked (PEP 552), so that an import reads no source. An environment that can be changed gets one more
file, which the site module runs at start-up: it has Python compare the hash of each source, as if started with
`--check-hash-based-pycs always`. An import then costs as much as with times, which a virtual environment compares.
Rejected: marking the byte code itself, a fifth of an environment, which a mount would have to copy.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.layers.published.environment import PublishedEnvironment

NAME = "00-lamella-checks-sources.pth"
"""The digits sort it before other `.pth` files, which may import modules."""
CONTENT = b'import _imp; _imp.check_hash_based_pycs = "always"\n'


def checked(environment: PublishedEnvironment, folders: Iterable[str]) -> dict[str, tuple[bytes, int]]:
    """Path to content and mode of the file that makes edits show; empty if `folders` hold no site-packages."""
    version = re.match(r"\d+\.\d+", environment.python)
    site = f"lib/python{version[0]}/site-packages" if version else ""
    found = site and any(os.path.isdir(f"{folder}/{site}") for folder in folders)
    return {f"{site}/{NAME}": (CONTENT, 0o644)} if found else {}
