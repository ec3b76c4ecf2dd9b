"""The version that a program prints."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def version(command: Sequence[str]) -> str:
    """Return the first number in the output of `command`, such as `docker --version`, or an empty string."""
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.replace(",", " ").split()
    return next((word.removeprefix("v") for word in words if word.lstrip("v")[:1].isdigit()), "")
