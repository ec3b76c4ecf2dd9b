"""The system that an environment is for, and the one that this process runs on.

Everything that differs between Linux, macOS and Windows in an environment's layout is here. Sources: System V ABI (ELF),
Apple's mach-o/loader.h and mach-o/fat.h, Microsoft's "PE Format"; CPython's sysconfig for the folders.
"""

from __future__ import annotations

import glob
import os
import struct
from dataclasses import dataclass
from typing import Literal

from lamella.builder.files import elf
from lamella.builder.files.small_file import read_small
from lamella.layers.oci.documents import Platform

SystemName = Literal["linux", "darwin", "windows"]

_MACH_64 = b"\xcf\xfa\xed\xfe"
_MACH_FAT = b"\xca\xfe\xba\xbe"
_MACH_CPUS = {0x01000007: "amd64", 0x0100000C: "arm64"}
_PE_MACHINES = {0x14C: "386", 0x8664: "amd64", 0xAA64: "arm64"}
_HEADER = 4096
_MOST_ARCHITECTURES = 16


@dataclass(frozen=True, slots=True)
class System:
    """An operating system on a machine. Injected wherever the answer depends on the one that runs."""

    name: SystemName
    architecture: str
    """OCI's name, such as `arm64`."""

    @classmethod
    def here(cls) -> System:
        """Return the system of this process. The one place in the builder that asks."""
        platform = Platform.here()
        names: dict[str, SystemName] = {"darwin": "darwin", "windows": "windows"}
        return cls(names.get(platform.os, "linux"), platform.architecture)

    def __str__(self) -> str:
        return f"{self.name}/{self.architecture}"

    @property
    def programs(self) -> str:
        """Folder of a virtual environment's programs, relative to its prefix."""
        return "Scripts" if self.name == "windows" else "bin"

    @property
    def interpreter(self) -> str:
        """Path of a virtual environment's interpreter, relative to its prefix, for messages."""
        return r"Scripts\python.exe" if self.name == "windows" else "bin/python"


INTERPRETERS = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")
"""Paths of an interpreter relative to its prefix: of POSIX systems, of Windows' virtual environments, and of conda and
installations on Windows."""


def is_windows_layout(executable: str) -> bool:
    """Whether the environment of `executable` is laid out as on Windows."""
    return executable.endswith(".exe")


def system_of(executable: str, here: System) -> System:
    """Return the system that the program `executable` is for; `here` for a script or a file that cannot be read.

    A universal binary of macOS is for the machine here if it has its code, else for arm64.
    """
    try:
        head = read_small(executable, _HEADER)
    except OSError:
        return System("windows", here.architecture) if is_windows_layout(executable) else here
    if head.startswith(elf.MAGIC):
        return System("linux", elf.machine_of(head) or here.architecture)
    if head.startswith((_MACH_64, _MACH_FAT)):
        machines = _mach_machines(head)
        return System("darwin", here.architecture if here.architecture in machines else next(iter(machines), "arm64"))
    if head.startswith(b"MZ"):
        return System("windows", _pe_machine(head) or here.architecture)
    return here


def short_versions(prefix: str) -> list[str]:
    """Return the minor versions, such as 3.12, whose packages the environment at `prefix` has, on a POSIX system."""
    # conda's lib/python3.1 is a link to the real folder.
    found = glob.glob(os.path.join(glob.escape(prefix), "lib", "python3.*", "site-packages"))
    return [
        os.path.basename(os.path.dirname(path)).removeprefix("python")
        for path in sorted(found)
        if not os.path.islink(os.path.dirname(path))
    ]


def site_packages(executable: str, short: str) -> str:
    """Return the folder of packages relative to the prefix: `lib/python3.12/site-packages`, on Windows `Lib/site-packages`."""
    return "Lib/site-packages" if is_windows_layout(executable) else f"lib/python{short}/site-packages"


def _mach_machines(head: bytes) -> list[str]:
    try:
        if head.startswith(_MACH_64):
            return [_MACH_CPUS[struct.unpack_from("<I", head, 4)[0]]]
        (count,) = struct.unpack_from(">I", head, 4)
        cpus = [struct.unpack_from(">I", head, 8 + 20 * at)[0] for at in range(min(count, _MOST_ARCHITECTURES))]
        return sorted({_MACH_CPUS[cpu] for cpu in cpus if cpu in _MACH_CPUS}, reverse=True)
    except (struct.error, KeyError):
        return []


def _pe_machine(head: bytes) -> str:
    try:
        (at,) = struct.unpack_from("<I", head, 0x3C)
        magic, machine = struct.unpack_from("<4sH", head, at)
    except struct.error:
        return ""
    return _PE_MACHINES.get(machine, "") if magic == b"PE\0\0" else ""
