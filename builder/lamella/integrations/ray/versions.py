"""The versions that a cluster, its driver and its workers must share."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import ray

from lamella.layers import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES = ("ray", "ray-core")
"""Ray's package in PyPI, and in conda-forge."""


def check_versions(subject: str, python: str, packages: Mapping[str, str], other: str) -> None:
    """Raise `Unsupported` unless Ray and Python in the environment `subject` are those of this process, called `other`."""
    found = next((packages[name] for name in _PACKAGES if name in packages), "")
    if not found:
        raise Unsupported(f"{subject}: Ray is missing; install ray=={ray.__version__} in the environment, then push it")
    if found != ray.__version__:
        raise Unsupported(
            f"{subject}: has Ray {found}, but {other} has {ray.__version__}; install ray=={ray.__version__} in the "
            "environment, then push it"
        )
    here = platform.python_version()
    if python.split(".")[:2] != here.split(".")[:2]:
        raise Unsupported(
            f"{subject}: has Python {python or 'of an unknown version'}, but {other} has {here}; Ray requires the same "
            "minor version"
        )
