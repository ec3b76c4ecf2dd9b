"""What an environment needs of the machine that runs it, looked at before anything is downloaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.errors import Unsupported

if TYPE_CHECKING:
    from lamella.layers.published import PublishedEnvironment


def check(environment: PublishedEnvironment) -> None:
    """Raises `Unsupported`, in one sentence, where this machine can't run the environment."""
    missing = missing_glibc(environment.glibc, glibc())
    if missing:
        raise Unsupported(f"this environment can't run here: {missing}")


def glibc() -> str:
    """This machine's glibc version, such as 2.36; empty where its C library is another one."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # musl knows no such name
        return ""
    return version if name == "glibc" else ""


def missing_glibc(needed: str, here: str) -> str:
    """What is missing where glibc `here` (empty: none) is to run what needs `needed`; nothing where that is enough."""
    if not needed or (here and _numbers(needed) <= _numbers(here)):
        return ""
    has = f"this machine has {here}" if here else "this machine has another C library"
    return f"it needs glibc {needed} or newer and {has}: use a newer system, or build the environment on an older one"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
