"""Find the shared libraries that ELF files need from this system, as the dynamic loader finds them.

Source: ld.so(8), "Dynamic string tokens" and the search order; glibc's dl-cache.h for the cache's format.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.layers.oci.documents import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from lamella.builder.files.elf import Elf

GLIBC = frozenset(
    f"{name}.so.{number}"
    for name, numbers in {
        "libc": "6",
        "libm": "6",
        "libmvec": "1",
        "libpthread": "0",
        "libdl": "2",
        "librt": "1",
        "libutil": "1",
        "libresolv": "2",
        "libnsl": "1",
        "libanl": "1",
        "libthread_db": "1",
        "libBrokenLocale": "1",
        "libnss_files": "2",
        "libnss_dns": "2",
        "libc_malloc_debug": "0",
    }.items()
    for number in numbers
)
"""Libraries of every glibc system. Never shipped: they belong with the node's loader."""

_LOADER = re.compile(r"ld-linux.*\.so\.\d|ld(64)?\.so\.\d|linux-vdso.*")
DRIVER = re.compile(
    r"libcuda\.so.*|libcudadebugger\.so.*|libnv(idia|cuvid|optix).*\.so.*|libamdhip64.*|libhsa-runtime64.*"
)
"""Libraries of a driver: they must be the node's own."""

_FLAGS = {"amd64": 0x0303, "arm64": 0x0A03, "386": 0x0003, "s390x": 0x0403, "ppc64le": 0x0503, "riscv64": 0x1003}
_DEFAULT = ("/lib/{triplet}", "/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf"}


@dataclass(frozen=True, slots=True)
class Needed:
    """Result of a search for libraries."""

    libraries: dict[str, str] = field(default_factory=dict)
    """soname: absolute path on this system, resolved."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """soname: sources that need it, if neither the environment nor this system has it."""
    driver: dict[str, list[str]] = field(default_factory=dict)
    """soname of a driver's library: sources that need it."""


def needed(
    files: Mapping[str, Elf],
    inside: Callable[[str], bool],
    library_folders: Sequence[str],
    machine: str,
    read: Callable[[Iterable[str]], Mapping[str, Elf]],
    *,
    without: Container[str] = (),
) -> Needed:
    """Find the libraries that `files` (resolved source path: ELF facts) need outside the environment.

    `inside` checks whether a path is the source of a file of the environment. `library_folders` are
    those in the interpreter's own RPATH. `read` returns the ELF facts of a system library, whose own
    needs are searched in turn. The resolved paths `without` are never used.
    """
    search = _Search(inside, tuple(library_folders), machine, without)
    held = {os.path.basename(source) for source in files} | {elf.soname for elf in files.values() if elf.soname}
    result = Needed()
    pending = dict(files)
    while pending:
        found: dict[str, str] = {}
        for source, elf in pending.items():
            for soname in elf.needed:
                if soname in GLIBC or _LOADER.fullmatch(soname) or soname in result.libraries or soname in found:
                    continue
                path = search.find(soname, source, elf)
                if DRIVER.fullmatch(soname):
                    # AMD's is in some wheels; NVIDIA's toolkits have a stub to link against.
                    if path is None or not inside(path) or "/stubs/" in path:
                        result.driver.setdefault(soname, []).append(source)
                elif path is None:
                    # Elsewhere in the environment: its package loads it first, as nvidia's and torch's do.
                    if soname not in held:
                        result.missing.setdefault(soname, []).append(source)
                elif not inside(path) and not inside(os.path.realpath(path)):
                    found[os.path.basename(soname)] = os.path.realpath(path)
        result.libraries.update(found)
        pending = dict(read(found.values())) if found else {}
    return result


class _Search:
    """Folders in which the loader looks for a library. Source: ld.so(8)."""

    def __init__(
        self, inside: Callable[[str], bool], library_folders: Sequence[str], machine: str, without: Container[str]
    ) -> None:
        here = machine in ("", Platform.here().architecture)
        self._inside = inside
        self._without = without
        self._cached = _cache(machine)
        self._common = [
            *library_folders,
            *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":") if here else ()),
        ]
        # A multiarch system may have another machine's libraries, in folders named after it.
        self._default = [
            folder.format(triplet=_TRIPLETS.get(machine, ""))
            for folder in _DEFAULT
            if here or (machine in _TRIPLETS and "{" in folder)
        ]
        self._exists: dict[str, bool] = {}

    def find(self, soname: str, source: str, elf: Elf) -> str | None:
        """Path of the library that `elf`, at `source`, loads as `soname`; None if not found."""
        if "/" in soname:
            return soname if self._is_there(soname) else None
        origin = os.path.dirname(source)
        own = [expand(folder, origin) for folder in (*elf.rpath, *elf.runpath)]
        for folder in (*own, *self._common):
            if self._is_there(path := os.path.normpath(f"{folder}/{soname}")):
                return path
        if soname in self._cached:
            return self._cached[soname]
        return next((path for folder in self._default if self._is_there(path := f"{folder}/{soname}")), None)

    def _is_there(self, path: str) -> bool:
        if path not in self._exists:
            is_file = os.path.isfile(path) and os.path.realpath(path) not in self._without
            self._exists[path] = self._inside(path) or is_file
        return self._exists[path]


def expand(folder: str, origin: str) -> str:
    """Expand `folder` of a run path as the loader does for a file in the folder `origin`."""
    for token, value in (("ORIGIN", origin), ("LIB", "lib"), ("PLATFORM", "")):
        folder = folder.replace(f"${{{token}}}", value).replace(f"${token}", value)
    return folder


def _cache(machine: str, path: str = "/etc/ld.so.cache") -> dict[str, str]:
    """soname: path of the libraries for `machine` in ld.so's cache; empty if the cache cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(64 << 20)
        start = data.index(b"glibc-ld.so.cache1.1")
        (count,) = struct.unpack_from("<I", data, start + 20)
        found: dict[str, str] = {}
        for at in range(start + 48, start + 48 + 24 * min(count, 1 << 20), 24):
            flags, key, value, _, hwcap = struct.unpack_from("<iIIIQ", data, at)
            # Skip copies for special processors (hwcap), which not every node can load.
            if flags == _FLAGS.get(machine, flags) and not hwcap:
                name = os.fsdecode(data[start + key : data.index(b"\0", start + key)])
                found.setdefault(name, os.fsdecode(data[start + value : data.index(b"\0", start + value)]))
        return found
    except (OSError, ValueError, struct.error):
        return {}
