"""What an environment needs of the machine that runs it, looked at before anything is downloaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.errors import Unsupported
from lamella.layers.oci.values import bounded_decimal

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from lamella.layers.published.environment import PublishedEnvironment

# Source: x86-64 psABI, "Micro-Architecture Levels", in the names of /proc/cpuinfo; abm is LZCNT.
_LEVELS = {
    2: ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    3: ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    4: ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
_MAX_CACHE = 16 << 20
_MAX_RELEASE = 9999


def check(environment: PublishedEnvironment, *, elsewhere: bool = False) -> None:
    """Raise `Unsupported`, in one sentence, if this machine can't run the environment.

    `elsewhere`: its programs run in another container of this machine, with a C library of its own: only the CPU counts.
    """
    if why_not := obstacle(environment, elsewhere=elsewhere):
        raise Unsupported(why_not)


def obstacle(environment: PublishedEnvironment, c_library: str | None = None, *, elsewhere: bool = False) -> str:
    """Return why this machine can't run the environment, in one sentence, or an empty string. Raises no error.

    `c_library`: the glibc version to compare with, such as that of a container; None for this machine's. `elsewhere`: see
    `check`.
    """
    has = glibc() if c_library is None else c_library
    missing = "" if elsewhere else missing_glibc(environment.glibc, has)
    level = environment.cpu_level
    missing = missing or (missing_level(level, _cpu_flags()) if level > 1 else "")
    return f"this environment cannot run here: {missing}" if missing else ""


def notes(environment: PublishedEnvironment) -> list[str]:
    """What this machine lacks that only a part of the environment needs, a sentence each.

    A missing driver is not an obstacle: most packages built for CUDA run on the CPU as well.
    """
    absent = missing_drivers(environment.drivers, os.environ.get("LD_LIBRARY_PATH", ""), "/etc/ld.so.cache")
    return [f"{name}: not found; packages that need this device driver's library will fail here" for name in absent]


def unmet_needs(environment: PublishedEnvironment, *, elsewhere: bool = False) -> tuple[str, ...]:
    """List what this machine lacks that `environment` needs, one sentence each; the reason it can't run comes first.

    `elsewhere`: programs run in another container of this machine, whose C library and drivers are not known here.
    Raises no error: a file of this machine that can't be read is passed over.
    """
    found = (obstacle(environment, elsewhere=elsewhere), *(() if elsewhere else notes(environment)))
    return tuple(filter(None, found))


def glibc() -> str:
    """This machine's glibc version, such as 2.36; empty where its C library is another one."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # musl has another set of names
        return ""
    return version if name == "glibc" else ""


def missing_glibc(needed: str, here: str) -> str:
    """Why glibc `here` (empty for another C library) can't run an environment that needs `needed`, or an empty string."""
    if not needed or (here and _release(needed) <= _release(here)):
        return ""
    has = f"this machine has {here}" if here else "this machine has another C library"
    return f"it needs glibc {needed} or newer and {has}: use a newer system, or build the environment on an older one"


def missing_level(needed: int, flags: Container[str]) -> str:
    """Why a CPU with `flags` (as in /proc/cpuinfo) can't run code of the x86-64 level `needed`, or an empty string."""
    for level in range(2, needed + 1):
        lacking = [flag for flag in _LEVELS[level] if flag not in flags]
        if lacking:
            return (
                f"it needs a CPU of level x86-64-v{needed} and this one lacks {', '.join(lacking)}: use a newer machine, "
                "or packages built for older ones"
            )
    return ""


def missing_drivers(needed: Sequence[str], library_path: str, cache: str) -> list[str]:
    """Which of the libraries `needed` are neither in a folder of `library_path` nor in the loader's `cache`."""
    if not needed:
        return []
    try:
        with open(cache, "rb") as file:
            known = file.read(_MAX_CACHE)
    except OSError:
        known = b""
    folders = [folder for folder in library_path.split(":") if folder]
    return [
        name
        for name in needed
        if b"\0" + name.encode() + b"\0" not in known
        and not any(os.path.exists(os.path.join(folder, name)) for folder in folders)
    ]


def _cpu_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    # Nothing is known, and so nothing is refused: the loader itself says what it misses.
    return frozenset(flag for flags in _LEVELS.values() for flag in flags)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a glibc version, to compare. Not by `packaging`: its import takes longer than a mount."""
    numbers = [bounded_decimal(part, _MAX_RELEASE) or 0 for part in version.split(".")[:4]]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
