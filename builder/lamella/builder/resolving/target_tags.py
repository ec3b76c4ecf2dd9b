"""What wheels a target machine takes: its tags, the markers' values, the best of several wheels. No I/O.

Sources: PyPA specifications, "Platform compatibility tags" (PEP 425, PEP 600), "Dependency specifiers".
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.builder.installed.requirements import MACHINES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.tags import Tag

    from lamella.builder.resolving.model import InstalledPackages, Target

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Names of PEP 600's tags before it, by glibc's minor version."""
_OLDEST = {"amd64": 5, "386": 5}
"""glibc's minor version that the oldest manylinux wheels of an architecture are for; 17 of all others."""
_SYSTEMS = {"linux": "linux", "darwin": "darwin", "windows": "win32"}
_NAMES = {"linux": "Linux", "darwin": "Darwin", "windows": "Windows"}


def machine(architecture: str) -> str:
    """Name of OCI's `architecture` in wheels and in `platform.machine()` on Linux."""
    return MACHINES.get(architecture, architecture)


def short_version(python: str) -> str:
    """`3.12` of 3.12.4."""
    return ".".join(python.split(".")[:2])


def glibc_minor(glibc: str) -> int:
    """The 28 of 2.28. Raises `BuilderError` for anything else."""
    found = re.fullmatch(r"2\.(\d{1,3})", glibc)
    if not found:
        raise BuilderError(f"--glibc {glibc}: not a version of glibc; write 2.28, for instance", code="invalid")
    return int(found[1])


def platform_tags(target: Target) -> Iterator[str]:
    """Platform tags of wheels for `target`, the most specific first, as `packaging.tags` orders them on that machine."""
    name = machine(target.platform.architecture)
    for minor in range(glibc_minor(target.glibc), _OLDEST.get(target.platform.architecture, 17) - 1, -1):
        yield f"manylinux_2_{minor}_{name}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{name}"
    yield f"linux_{name}"


@functools.cache
def ranks(target: Target) -> Mapping[Tag, int]:
    """Each tag that `target` takes, with its rank: 0 is the most specific one."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in target.python.split(".")[:2])
    platforms, interpreter = list(platform_tags(target)), f"cp{major}{minor}"
    found = [
        *cpython_tags((major, minor), [interpreter], platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(found)))}


def rank(filename: str, target: Target) -> tuple[int, tuple[int, str]] | None:
    """Order of the wheel `filename` among those of its version, the best one the smallest; None if it does not fit."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    known = ranks(target)
    found = [known[tag] for tag in tags if tag in known]
    # Of two builds the later one is the better.
    number, suffix = build or (0, "")
    return (min(found), (-number, suffix)) if found else None


def best(filenames: Iterable[str], target: Target) -> str | None:
    """The wheel of `filenames`, all of one version, that an installer on `target` chooses; None if none fits."""
    ranked = [(found, name) for name in filenames if (found := rank(name, target)) is not None]
    return min(ranked)[1] if ranked else None


def is_for_linux(filename: str) -> bool:
    """Whether the wheel `filename` is for some Linux, or for any system."""
    platform = filename.removesuffix(".whl").rpartition("-")[2]
    return any(part == "any" or "linux" in part for part in platform.split("."))


def target_markers(target: Target) -> dict[str, str]:
    """Values of markers on `target`, without an extra."""
    return _markers(target.python, target.platform.os, machine(target.platform.architecture))


def source_markers(installed: InstalledPackages) -> dict[str, str]:
    """Values of markers in the environment that was read, without an extra."""
    names = {("darwin", "arm64"): "arm64", ("windows", "amd64"): "AMD64", ("windows", "arm64"): "ARM64"}
    found = names.get((installed.system, installed.architecture), machine(installed.architecture))
    return _markers(installed.python, installed.system, found)


def _markers(python: str, system: str, found: str) -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "nt" if system == "windows" else "posix",
        "platform_machine": found,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": _NAMES.get(system, system),
        "platform_version": "",
        "python_full_version": python,
        "python_version": short_version(python),
        "sys_platform": _SYSTEMS.get(system, system),
        "extra": "",
    }
