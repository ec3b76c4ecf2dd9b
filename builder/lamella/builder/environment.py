"""Nouns of the builder: an environment, its packages and their files, as they are on this disk.

`scan` makes them; planning and packing read them. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Finding

Origin = Literal["conda", "pypi", "python", "local", "system", "unowned"]
Holds = Literal["", "text", "binary"]


class RunPath(NamedTuple):
    """Folders in which the dynamic loader looks for the libraries of an ELF file."""

    tag: Literal["RPATH", "RUNPATH"]
    """Which of DT_RPATH and DT_RUNPATH: the former also serves the libraries that it loads."""
    folders: str
    """Separated by colons; empty for none."""


class File(NamedTuple):
    """A file or symlink of a package on this disk. Directories are not files: layers make them.

    A symlink that leaves the environment is resolved already: it is a regular file with its target as
    `source`. A NamedTuple, since a scan makes 66,000 of them within a second, and a frozen dataclass takes
    four times as long.
    """

    path: str
    """Path relative to the environment's prefix, '/' between parts; undecodable bytes surrogate-escaped."""
    source: str
    """Absolute path, on this disk, of the bytes (for a symlink: of the link itself)."""
    mode: int
    """0o755 if its owner may execute it, else 0o644; 0o777 for a symlink."""
    size: int
    """Bytes on this disk; 0 for a symlink."""
    digest: str = ""
    """sha256 of the bytes on this disk, 64 hex digits; empty for a symlink."""
    target: str | None = None
    """Target of a symlink, relative to its folder; None for a regular file."""
    holds: Holds = ""
    """Whether the bytes contain one of the environment's prefixes, and in which form they can be rewritten."""
    mtime_ns: int = 0
    """With `size` and `ctime_ns`: detects a change of the file since the scan."""
    ctime_ns: int = 0
    run_path: RunPath | None = None
    """Run path to ship in place of one that names folders of this machine; None to leave it alone."""


@dataclass(frozen=True, slots=True, repr=False)
class Package:
    """An installed unit."""

    origin: Origin
    name: str
    """Normalised (PEP 503) for pip distributions; conda's name for conda packages; `python` for the interpreter."""
    version: str
    """Version from its metadata; empty without one (`system`, `unowned`)."""
    files: tuple[File, ...]
    """Sorted by path. No path is in two packages."""
    build: str = ""
    """conda's build string."""
    source: str = ""
    """Source of the installation, without credentials; empty if not recorded."""
    records: str = ""
    """Folder of its metadata relative to the prefix (`lib/python3.12/site-packages/x-1.dist-info`), or empty."""

    @property
    def size(self) -> int:
        """Bytes of its files on this disk."""
        return sum(file.size for file in self.files)

    def __repr__(self) -> str:
        """One line: an environment has tens of thousands of files."""
        files = counted(len(self.files), "file")
        return f"<Package {f'{self.name} {self.version}'.rstrip()} ({self.origin}): {files}, {size(self.size)}>"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder of the environment that is in no package, with the reason."""

    path: str
    """Relative to the prefix if it is below it, else absolute. A folder includes everything below it."""
    reason: str


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the environment."""

    executable: str
    """Absolute path of the environment's own `python` (a venv's link, not resolved)."""
    version: str
    """Such as 3.12.4."""
    implementation: str
    """sys.implementation.name: `cpython`."""
    cache_tag: str
    """Tag of byte code files: `cpython-312`."""
    magic: str
    """Byte code's magic number, 8 hex digits; empty if no Python here compiles for it."""
    base_prefix: str
    """Prefix of the interpreter that a venv borrows, else the environment's own."""
    stdlib: str
    """Folder of the standard library relative to the image prefix: `lib/python3.12`."""
    purelib: str
    """Folder of site-packages relative to the image prefix: `lib/python3.12/site-packages`."""
    compiler: str
    """Absolute path of the Python that compiles its modules: itself, or for another machine one of its
    version. Empty if there is none: then modules ship as source."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Needs of the environment on a node."""

    glibc: str = ""
    """Newest GLIBC_ symbol version that any of its ELF files needs, such as 2.28; empty for none."""
    level: int = 1
    """x86-64 level, 1 to 4, that its ELF files are marked with; 1 on any other architecture."""
    drivers: tuple[str, ...] = ()
    """Sonames of a GPU driver's libraries that must be the node's own, such as libcuda.so.1; sorted."""
    certificates: tuple[str, ...] = ()
    """File and folder in which its OpenSSL looks for certificate authorities on a node, such as
    `/usr/lib/ssl/cert.pem`. Empty if they ship or are unknown; one empty string for a path that no node
    has, such as in a base interpreter's folder."""


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """An interpreter, its prefix, its platform, and its packages. Every file is in one package or in `left_out`."""

    prefix: str
    """Absolute, as named by the user, without a trailing slash."""
    prefixes: tuple[bytes, ...]
    """Every spelling of the environment's own prefixes that its files may contain (as given, resolved, the
    base interpreter's), longest first. Shared prefixes, such as /usr, are never included."""
    interpreter: Interpreter
    platform: Platform
    packages: tuple[Package, ...]
    """Sorted by (name, origin)."""
    left_out: tuple[LeftOut, ...] = ()
    findings: tuple[Finding, ...] = ()
    needs: Needs = field(default_factory=Needs)
    locks: Mapping[str, str] = field(default_factory=dict)
    """Texts of lock files of the packages, by file name: attached to a push. A scan makes none."""
    digest: str = field(default="", init=False, compare=False)
    """Digest of the scan that made this very environment, for memories of what follows from it. Empty if a change could
    have gone unnoticed, and for an environment that is made of another one."""

    def __repr__(self) -> str:
        """One line, as for a package."""
        interpreter = f"{self.interpreter.implementation} {self.interpreter.version} on {self.platform}"
        files = counted(sum(len(package.files) for package in self.packages), "file")
        total = size(sum(package.size for package in self.packages))
        return (
            f"<Environment {escaped(self.prefix)}: {interpreter}; {counted(len(self.packages), 'package')}, {files}, {total}, "
            f"{counted(len(self.findings), 'finding')}>"
        )
