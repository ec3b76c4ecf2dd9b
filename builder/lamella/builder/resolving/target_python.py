"""Place an interpreter for the target in a prefix, as files: it never runs here.

The prefix gets what an interpreter's own prefix has (`bin/python3.12`, its library, its standard library, its headers)
and, in `lib/system`, the shared libraries of its system that it needs. A scan takes them from there, as it takes
those of this system for an environment of this machine.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import posixpath
import re
import shutil
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError, NotAnEnvironment
from lamella.builder.files import disk_names, elf
from lamella.builder.files.scratch import scratch_folder
from lamella.builder.files.small_file import read_text
from lamella.builder.prefix.foreign import header_version, own_version
from lamella.builder.resolving.python_sources import FLAG, Reading, named_source, repository_source, short
from lamella.builder.scanning.ld_so import DRIVER, GLIBC, LOADER
from lamella.builder.scanning.system_libraries import FOLDER
from lamella.layers.progress.display import Silent
from lamella.layers.published.findings import Finding
from lamella.layers.settings.trust import Trust
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from lamella.builder.files.elf import Elf
    from lamella.builder.resolving.image_tree import Tree, TreeFile
    from lamella.builder.resolving.model import ResolveOptions, Target
    from lamella.builder.resolving.python_sources import Source
    from lamella.layers.progress.display import Progress

_SILENT = Silent()
_RUNTIME = ("libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1", "libgfortran.so.5", "libatomic.so.1", "libquadmath.so.0")
"""Libraries of compilers, which most compiled wheels need; taken if the source has them."""
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf"}
_LIBRARIES = ("usr/local/lib", "lib/{triplet}", "usr/lib/{triplet}", "lib64", "usr/lib64", "lib", "usr/lib")
_BESIDE = re.compile(r"lib/(?:tcl|tk|itcl|thread)\d[^/]*/.*|share/terminfo/.*|lib/libpython3(?:\.\d+)?\.so(?:\..*)?")
_SHARED = frozenset({"usr", "usr/local", ""})


@dataclass(frozen=True, slots=True)
class PlacedPython:
    """The interpreter that was placed."""

    version: str
    source: str
    """Where it comes from, for messages."""
    files: tuple[str, ...] = ()
    """Paths of its files and links, relative to the prefix."""
    libraries: tuple[str, ...] = ()
    """Sonames that its files are, or that were looked for in the source, found or not."""
    findings: tuple[Finding, ...] = ()


def place_python(
    prefix: str,
    target: Target,
    options: ResolveOptions,
    repository: str = "",
    *,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
) -> PlacedPython:
    """Place an interpreter for `target` in the folder `prefix`.

    It comes from `options.python_from`, else from an environment in the repository of the reference `repository`. ELF
    files that are in the prefix already, such as unpacked wheels, get the libraries that they need from the same source.
    Idempotent: equal files stay, others are replaced, not written through. Nothing is placed on an error. Raises
    `NotAnEnvironment` without an interpreter of that minor version, and what reading a registry raises.
    """
    with scratch_folder() as spool:
        source = _source(options, Reading(target, spool, repository, trust, progress))
        found = _Interpreter(source, target)
        libraries, asked = found.libraries(_elf_files(prefix))
        files = {**found.files(), **{f"{FOLDER}/{soname}": node for soname, node in libraries.items()}}
        files, lost = _distinct(prefix, files)
        version = found.version()
        if short(version) != short(target.python):
            raise _missing(source.name, target)
        for path, node in files.items():
            _put(os.path.join(prefix, *path.split("/")), node)
        links = {f"bin/{name}": f"python{short(version)}" for name in ("python", "python3")}
        os.makedirs(os.path.join(prefix, "lib", f"python{short(version)}", "site-packages"), exist_ok=True)
        if found.is_debians():
            # With its own interpreter, Debian's site module reads this folder.
            links[f"lib/python{short(version)}/dist-packages"] = "site-packages"
        for path, goal in links.items():
            _link(os.path.join(prefix, *path.split("/")), goal)
    findings = (*_moved(version, source.name, target), *lost)
    return PlacedPython(version, source.name, tuple(sorted({*files, *links})), tuple(sorted(asked)), findings)


def lacks_libraries(prefix: str, placed: Container[str]) -> bool:
    """Whether an ELF file in `prefix` needs a library that is not among the `libraries` of its placed interpreter."""
    for path in _elf_files(prefix):
        facts = _read(path)
        needed = {soname for soname in facts.needed if _is_systems(soname) and soname not in placed} if facts else ()
        if facts and any(not _has_own(path, facts, soname) for soname in needed):
            return True
    return False


def _has_own(path: str, facts: Elf, soname: str) -> bool:
    """Whether the loader finds the library in a folder that the file itself names, as in wheels that bundle theirs."""
    folders = (
        re.sub(r"\$(?:ORIGIN\b|\{ORIGIN\})", lambda _: os.path.dirname(path), each)
        for each in (*facts.rpath, *facts.runpath)
    )
    return any(os.path.exists(os.path.join(folder, soname)) for folder in folders)


def _source(options: ResolveOptions, reading: Reading) -> Source:
    if options.python_from:
        return named_source(options.python_from, reading)
    source = repository_source(reading) if reading.goal else None
    if source:
        return source
    version, platform = short(reading.target.python), reading.target.platform
    found = (
        f"{reading.goal}: no environment for {platform} with Python {version} in its repository"
        if reading.goal
        else f"no Python {version} for {platform}"
    )
    raise NotAnEnvironment(f"{found}; name a folder or an image, such as {FLAG} python:{version}-slim")


class _Interpreter:
    """An interpreter of the target's minor version among the files of a source."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source = source
        self._tree: Tree = source.tree
        self._name = f"python{short(target.python)}"
        self._machine = target.platform.architecture
        self.prefix, self.executable = self._located(target)

    def _located(self, target: Target) -> tuple[str, TreeFile]:
        tail = f"bin/{self._name}"
        everywhere = sorted((path for path in self._tree.nodes if f"/{path}".endswith(f"/{tail}")), key=len)
        candidates = [*self._source.folders, *(path.removesuffix(tail).rstrip("/") for path in everywhere)]
        problem = None
        for prefix in dict.fromkeys(candidates):
            executable = self._tree.file(_join(prefix, tail))
            if not executable or not executable.source or not self._tree.file(_join(prefix, f"lib/{self._name}/os.py")):
                continue
            kind = self._unfit(prefix, executable.source, target)
            if not kind:
                return self._tree.resolved(prefix), executable
            problem = problem or NotAnEnvironment(
                f"{self._source.name}: its {self._name} is {kind}; "
                f"name another image, such as {FLAG} python:{short(target.python)}-slim"
            )
        raise problem or _missing(self._source.name, target)

    def _unfit(self, prefix: str, executable: str, target: Target) -> str:
        """What makes the interpreter at `prefix` of no use; empty if it can be placed."""
        facts = _read(executable)
        if facts and _is_musl(facts):
            return "built for musl"
        if not facts or facts.machine != self._machine:
            return f"not for {target.platform}"
        # The second is of an unpacked package in conda's cache.
        if self._tree.names(_join(prefix, "conda-meta")) or self._tree.file(_join(prefix, "info/index.json")):
            return "conda's, which needs other packages"
        return ""

    def files(self) -> dict[str, TreeFile]:
        """Its own files, by path in an environment."""
        found = {f"bin/{self._name}": self.executable}
        for folder in (f"lib/{self._name}", f"include/{self._name}"):
            found |= self._below(folder)
        for path in self._tree.below(_join(self.prefix, "lib")):
            inner = path.removeprefix(f"{self.prefix}/" if self.prefix else "")
            if re.fullmatch(r"lib/libpython3(?:\.\d+)?\.so(?:\..*)?", inner) or (
                self.prefix not in _SHARED and _BESIDE.fullmatch(inner)
            ):
                found |= self._kept(inner, path)
        if self.prefix not in _SHARED:
            found |= self._below("share/terminfo")
        return found

    def _below(self, folder: str) -> dict[str, TreeFile]:
        found: dict[str, TreeFile] = {}
        real = self._tree.resolved(_join(self.prefix, folder))
        for path in self._tree.below(real) if real else ():
            found |= self._kept(f"{folder}/{path.removeprefix(real).lstrip('/')}", path)
        return found

    def _kept(self, inner: str, path: str) -> dict[str, TreeFile]:
        node = self._tree.file(path)
        return {inner: node} if node and node.source else {}

    def version(self) -> str:
        """Its version, such as 3.12.4; empty if it is unknown."""
        paths = f"include/{self._name}/patchlevel.h", f"lib/lib{self._name}.so.1.0"
        header, library = (node.source if (node := self._tree.file(_join(self.prefix, each))) else "" for each in paths)
        return header_version(header) or own_version(library, self.executable.source)

    def is_debians(self) -> bool:
        """Whether its site module looks for packages in dist-packages."""
        site = self._tree.file(_join(self.prefix, f"lib/{self._name}/site.py"))
        return bool(site and site.source and "dist-packages" in read_text(site.source))

    def libraries(self, others: Iterable[str]) -> tuple[dict[str, TreeFile], set[str]]:
        """Libraries outside its prefix's own that it, `others` (files on this disk) and compilers' code need, by soname.

        The second value has the names of all that are its own or were looked for. glibc and drivers belong to the
        node. Without a library, the scan reports the files that need it.
        """
        own = self.files()
        names = {posixpath.basename(path) for path in own}
        pending = deque(node.source for path, node in own.items() if ".so" in path or path.startswith("bin/"))
        pending.extend(others)
        wanted: deque[str] = deque(_RUNTIME)
        found: dict[str, TreeFile] = {}
        asked = set(names)
        folders = self._folders()
        while pending or wanted:
            while pending:
                facts = _read(pending.popleft())
                wanted.extend(facts.needed if facts else ())
            soname = wanted.popleft() if wanted else ""
            if not _is_systems(soname) or soname in asked:
                continue
            asked.add(soname)
            if node := self._library(soname, folders):
                found[soname] = node
                pending.append(node.source)
        return found, asked

    def _library(self, soname: str, folders: Iterable[str]) -> TreeFile | None:
        for folder in folders:
            node = self._tree.file(_join(folder, soname))
            facts = _read(node.source) if node and node.source else None
            if facts and facts.machine == self._machine:
                return node
        return None

    def _folders(self) -> list[str]:
        """Folders in which its loader looks for libraries. Source: ld.so(8), ldconfig(8)."""
        triplet = _TRIPLETS.get(self._machine, "")
        return [
            *(_join(self.prefix, folder) for folder in ("lib", FOLDER)),
            *self._configured(),
            *(folder.format(triplet=triplet) for folder in _LIBRARIES),
        ]

    def _configured(self) -> Iterator[str]:
        for name in self._tree.names("etc/ld.so.conf.d"):
            node = self._tree.file(f"etc/ld.so.conf.d/{name}")
            for line in read_text(node.source).splitlines() if node and node.source else ():
                if line.startswith("/"):
                    yield line.strip().strip("/")


def _missing(name: str, target: Target) -> BuilderError:
    version = short(target.python)
    return NotAnEnvironment(
        f"{name}: no Python {version} for {target.platform}; name an image or folder that has it, such as "
        f"{FLAG} python:{version}-slim"
    )


def _moved(version: str, name: str, target: Target) -> Iterator[Finding]:
    if version != target.python:
        message = f"python {target.python} here, {version} for {target.platform} from {name}"
        yield Finding("note", "python", "python", message)


def _distinct(prefix: str, files: dict[str, TreeFile]) -> tuple[dict[str, TreeFile], list[Finding]]:
    """Files that the disk of `prefix` can hold beside each other, and a finding about the others.

    Descriptions of terminals, in `share/terminfo`, differ in case alone.
    """
    if not disk_names.merges_names(os.path.dirname(prefix)):
        return files, []
    # Names in lower case are those of most terminals.
    lost = disk_names.indistinct(sorted(files, key=str.swapcase))
    if not lost:
        return files, []
    path, other = min(lost.items())
    message = (
        f"python: {counted(len(lost), 'file')} left out, such as {path} beside {other}: this disk cannot hold both"
    )
    kept = {path: node for path, node in files.items() if path not in lost}
    return kept, [Finding("warning", "disk", "python", f"{message}; {disk_names.REMEDY}")]


def _elf_files(prefix: str) -> Iterator[str]:
    for folder, _, names in os.walk(prefix):
        yield from (path for name in names if ".so" in name and not os.path.islink(path := os.path.join(folder, name)))


def _read(path: str) -> Elf | None:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return elf.read_elf(descriptor)
    finally:
        os.close(descriptor)


def _is_musl(facts: Elf) -> bool:
    return any(soname.startswith("libc.musl-") for soname in facts.needed)


def _is_systems(soname: str) -> bool:
    """Whether a system's libraries may have it, and nodes need not: not glibc's, a driver's, the loader itself."""
    nodes = soname in GLIBC or LOADER.fullmatch(soname) or DRIVER.fullmatch(soname)
    return bool(soname) and "/" not in soname and not nodes


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _put(path: str, node: TreeFile) -> None:
    mode = 0o755 if node.executable else 0o644
    if os.path.isfile(path) and not os.path.islink(path) and filecmp.cmp(node.source, path, shallow=False):
        os.chmod(path, mode)
        return
    with _beside(path) as partial:
        shutil.copyfile(node.source, partial)
        os.chmod(partial, mode)


def _link(path: str, target: str) -> None:
    if os.path.islink(path) and os.readlink(path) == target:
        return
    with _beside(path) as partial:
        try:
            os.symlink(target, partial)
        except OSError:
            # Windows without the right to make links.
            source = os.path.join(os.path.dirname(path), target)
            if os.path.isdir(source):
                raise
            shutil.copyfile(source, partial)


@contextlib.contextmanager
def _beside(path: str) -> Iterator[str]:
    """A path to write to, which then takes the place of `path`: a hard link there is not written through."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    yield partial
    os.replace(partial, path)
