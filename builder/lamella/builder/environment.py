"""The nouns of the builder: an environment, its packages and their files, as they are on this disk.

`scan` makes these; the plan, canonical content and pack read them. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Finding

Origin = Literal["conda", "pypi", "python", "local", "system", "unowned"]
Holds = Literal["", "text", "binary"]


class File(NamedTuple):
    """One file or symlink of a package, as it is on this disk. Directories are not files: layers make them.

    A symlink that leads outside the environment is already resolved: it is a regular file whose `source` is what it
    points to. A NamedTuple, since 66,000 of them are made within a second, and a frozen dataclass takes four times as
    long.
    """

    path: str
    """Where it belongs, relative to the environment's prefix, '/' between parts; undecodable bytes surrogate-escaped."""
    source: str
    """The absolute path, on this disk, of the bytes (a symlink: of the link itself)."""
    mode: int
    """0o755 where its owner may execute it, else 0o644; a symlink has 0o777."""
    size: int
    """Bytes on this disk; 0 for a symlink."""
    digest: str = ""
    """sha256 of the bytes on this disk, 64 hex digits; empty for a symlink."""
    target: str | None = None
    """A symlink's target, relative to the folder it is in; None for a regular file."""
    holds: Holds = ""
    """Whether the bytes hold one of the environment's prefixes, and as what they can be rewritten."""
    mtime_ns: int = 0
    """With `size` and `ctime_ns`: what a second look compares, to notice that the file changed since."""
    ctime_ns: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Package:
    """One unit that was installed."""

    origin: Origin
    name: str
    """Normalised (PEP 503) for pip distributions; conda's name for conda packages; `python` for the interpreter."""
    version: str
    """As its metadata says; empty where it has none (`system`, `unowned`)."""
    files: tuple[File, ...]
    """Sorted by path. No path is in two packages."""
    build: str = ""
    """conda's build string."""
    source: str = ""
    """Where it was installed from, without credentials; empty where its records don't say."""
    records: str = ""
    """The folder of its metadata relative to the prefix (`lib/python3.12/site-packages/x-1.dist-info`), or empty."""

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
    """A file or folder of the environment that is in no package, and why."""

    path: str
    """Relative to the prefix where it is in it, else absolute. A folder stands for all that is below it."""
    reason: str


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the environment, as it says of itself."""

    executable: str
    """Absolute path of the environment's own `python` (a venv's link, not resolved)."""
    version: str
    """Such as 3.12.4."""
    implementation: str
    """sys.implementation.name: `cpython`."""
    cache_tag: str
    """Of byte code files: `cpython-312`."""
    magic: str
    """The byte code's magic number, 8 hex digits; empty where nothing compiles for it."""
    base_prefix: str
    """Of the interpreter that a venv borrows; the prefix itself where the environment owns its interpreter."""
    stdlib: str
    """The folder of the standard library relative to the image prefix: `lib/python3.12`."""
    purelib: str
    """The folder of site-packages relative to the image prefix: `lib/python3.12/site-packages`."""
    compiler: str
    """Absolute path of the Python that compiles its modules: itself, or one of its version where it is another
    machine's; empty for none, and then modules ship as source."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the environment needs of a node."""

    glibc: str = ""
    """The newest GLIBC_ symbol version that any of its ELF files asks for, such as 2.28; empty for none."""
    level: int = 1
    """The x86-64 level, 1 to 4, that its ELF files are marked to need; 1 on any other architecture."""
    drivers: tuple[str, ...] = ()
    """Sonames of a GPU driver's libraries that must be the node's own, such as libcuda.so.1; sorted."""
    certificates: tuple[str, ...] = ()
    """Where on a node its OpenSSL looks for certificate authorities, a file and a folder: `/usr/lib/ssl/cert.pem`. Empty
    where they ship, or nobody can say; one empty string for a place that no node has, such as a base interpreter's own."""


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """An interpreter, its prefix, its platform, and its packages. Every file is in one package or in `left_out`."""

    prefix: str
    """Absolute, as the user named it, without a trailing slash."""
    prefixes: tuple[bytes, ...]
    """Every spelling of the environment's own prefixes that its files may hold (as given, resolved, the base
    interpreter's), longest first. A prefix that others share, such as /usr, is never among them."""
    interpreter: Interpreter
    platform: Platform
    packages: tuple[Package, ...]
    """Sorted by (name, origin)."""
    left_out: tuple[LeftOut, ...] = ()
    findings: tuple[Finding, ...] = ()
    needs: Needs = field(default_factory=Needs)

    def __repr__(self) -> str:
        """One line, as for a package."""
        interpreter = f"{self.interpreter.implementation} {self.interpreter.version} on {self.platform}"
        files = counted(sum(len(package.files) for package in self.packages), "file")
        total = size(sum(package.size for package in self.packages))
        return (
            f"<Environment {escaped(self.prefix)}: {interpreter}; {counted(len(self.packages), 'package')}, {files}, {total}, "
            f"{counted(len(self.findings), 'finding')}>"
        )
