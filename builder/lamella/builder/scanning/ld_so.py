"""Find the shared libraries that ELF files need from this system, as the dynamic loader finds them.

Source: ld.so(8), "Dynamic string tokens" and the search order; glibc's dl-cache.h for the cache's format.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lamella.layers.oci.documents import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from lamella.builder.files.elf import Elf
    from lamella.builder.scanning.disk import Disk

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

LOADER = re.compile(r"ld-linux.*\.so\.\d|ld(64)?\.so\.\d|linux-vdso.*")
DRIVER = re.compile(
    r"libcuda\.so.*|libcudadebugger\.so.*|libnv(idia|cuvid|optix).*\.so.*|libamdhip64.*|libhsa-runtime64.*"
)
"""Libraries of a driver: they must be the node's own."""

_CACHE = "/etc/ld.so.cache"
_LOCAL = ("/usr/local/lib", "/usr/local/lib/{triplet}")
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
    instead: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """soname: (source that needs it, file of the environment that it loads), in place of a library of this system."""
    here: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """soname: (source that needs it, file of the environment) found by a setting of this machine alone."""


class Environment(Protocol):
    """The environment's files, as a search needs to know them."""

    @property
    def disk(self) -> Disk:
        """Files outside."""

    def inside(self, path: str) -> bool:
        """Whether `path` is the source of a file of the environment."""

    def relies(self, source: str, holder: str) -> bool:
        """Whether the package of the file `source` requires that of the file `holder`; False for the interpreter's."""

    def by_vendor(self, holder: str) -> bool:
        """Whether the file `holder` is in a package of a driver's vendor, from which others load libraries by themselves."""

    def installed(self, source: str) -> bool:
        """Whether an installed package, and not the interpreter, has the file `source`."""


def needed(
    files: Mapping[str, Elf],
    environment: Environment,
    library_folders: Sequence[str],
    machine: str,
    read: Callable[[Iterable[str]], Mapping[str, Elf]],
    *,
    without: Collection[str] = (),
    system_folder: str = "",
) -> Needed:
    """Find the libraries that `files` (resolved source path: ELF facts) need outside the environment.

    `library_folders` are those in the interpreter's own RPATH, and `system_folder` is the last of them, with the
    libraries that an export or another platform's interpreter brought from a system: they count as that system's.
    `read` returns the ELF facts of a system
    library, whose own needs are searched in turn. The resolved paths `without` are never used.
    """
    disk = environment.disk
    search = _Search(environment, tuple(library_folders), machine, without, system_folder)
    held = {elf.soname: source for source, elf in files.items() if elf.soname}
    held |= {os.path.basename(source): source for source in files}
    result = Needed()
    pending = dict(files)

    def has_its_own(soname: str, path: str, source: str) -> bool:
        """Whether a package brings the library, and its user loads it from there: nvidia's wheels, and a toolkit here."""
        holder = held.get(soname)
        if not holder:
            return False
        # The interpreter looks in these folders before that of system libraries.
        if search.by_interpreter(soname):
            return True
        # NVIDIA's repositories for distributions put NCCL and cuDNN into the distribution's own folders.
        known = search.is_toolkit(path) or environment.by_vendor(holder) or environment.relies(source, holder)
        return environment.installed(source) and known

    while pending:
        found: dict[str, str] = {}
        for source, elf in pending.items():
            for soname in elf.needed:
                if soname in GLIBC or LOADER.fullmatch(soname) or soname in result.libraries or soname in found:
                    continue
                path, travels = search.find(soname, source, elf)
                inside = bool(path) and (environment.inside(path) or environment.inside(disk.real(path)))
                if DRIVER.fullmatch(soname):
                    # AMD's is in some wheels; NVIDIA's toolkits have a stub to link against.
                    if not inside or "/stubs/" in path:
                        result.driver.setdefault(soname, []).append(source)
                elif not path:
                    # Elsewhere in the environment: its package loads it first, as nvidia's and torch's do.
                    if soname not in held:
                        result.missing.setdefault(soname, []).append(source)
                elif inside:
                    if not travels:
                        result.here.setdefault(soname, []).append((source, path))
                elif has_its_own(soname, path, source):
                    result.instead.setdefault(soname, []).append((source, held[soname]))
                else:
                    found[os.path.basename(soname)] = disk.real(path)
        result.libraries.update(found)
        pending = dict(read(found.values())) if found else {}
    return result


class _Search:
    """Folders in which the loader looks for a library. Source: ld.so(8)."""

    def __init__(
        self,
        environment: Environment,
        library_folders: Sequence[str],
        machine: str,
        without: Collection[str],
        system_folder: str,
    ) -> None:
        here = machine in ("", Platform.here().architecture)
        self._here = here
        self._inside = environment.inside
        self._disk = environment.disk
        self._without = without
        self._cached = _cache(machine, self._disk)
        self._interpreter = library_folders
        self._system = (system_folder,) if system_folder else ()
        self._variable = tuple(filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":") if here else ()))
        # A multiarch system may have another machine's libraries, in folders named after it.
        self._default = [
            folder.format(triplet=_TRIPLETS.get(machine, ""))
            for folder in _DEFAULT
            if here or (machine in _TRIPLETS and "{" in folder)
        ]
        local = [folder.format(triplet=_TRIPLETS.get(machine, "")) for folder in _LOCAL]
        self._distribution = frozenset((*self._default, *local, *self._system))
        self._exists: dict[str, bool] = {}

    def find(self, soname: str, source: str, elf: Elf) -> tuple[str, bool]:
        """Path of the library that `elf`, at `source`, loads as `soname`, and whether a node finds it in the same way.

        That is, if it is in the environment: by a run path, and not by LD_LIBRARY_PATH or ld.so's cache.
        The path is empty if the library is not found.
        """
        if "/" in soname:
            return (soname, False) if self._is_there(soname) else ("", False)
        origin = os.path.dirname(source)
        own = [expand(folder, origin) for folder in (*elf.rpath, *elf.runpath) if self._here or self._travels(folder)]
        for folder in (*own, *self._interpreter, *self._system):
            if self._is_there(path := os.path.normpath(f"{folder}/{soname}")):
                return path, True
        for folder in self._variable:
            if self._is_there(path := os.path.normpath(f"{folder}/{soname}")):
                return path, False
        if soname in self._cached:
            return self._cached[soname], False
        return next((path for folder in self._default if self._is_there(path := f"{folder}/{soname}")), ""), False

    def _travels(self, folder: str) -> bool:
        """Whether a folder of a run path, in a file for another machine, is not one of this machine's own."""
        return not folder.startswith("/") or any(
            folder.startswith(f"{os.path.dirname(each)}/") for each in self._interpreter
        )

    def by_interpreter(self, soname: str) -> bool:
        """Whether the environment has the library in a folder of the interpreter's run path."""
        return any(self._inside(f"{folder}/{soname}") for folder in self._interpreter)

    def is_toolkit(self, path: str) -> bool:
        """Whether `path` is in a folder of its vendor's, such as /usr/local/cuda/lib64, and not in one of the distribution's."""
        return os.path.dirname(path) not in self._distribution

    def _is_there(self, path: str) -> bool:
        if path not in self._exists:
            self._exists[path] = self._inside(path) or (self._disk.is_file(path) and not self._is_left_out(path))
        return self._exists[path]

    def _is_left_out(self, path: str) -> bool:
        return bool(self._without) and self._disk.real(path) in self._without


def expand(folder: str, origin: str) -> str:
    """Expand `folder` of a run path as the loader does for a file in the folder `origin`."""
    for token, value in (("ORIGIN", origin), ("LIB", "lib"), ("PLATFORM", "")):
        folder = folder.replace(f"${{{token}}}", value).replace(f"${token}", value)
    return folder


def _cache(machine: str, disk: Disk) -> dict[str, str]:
    """soname: path of the libraries for `machine` in ld.so's cache; empty if the cache cannot be read."""
    try:
        data = disk.read(_CACHE)
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
