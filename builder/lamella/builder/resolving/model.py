"""Nouns of a resolution: what an environment has, and what the target platform gets in its place. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Finding

Match = Literal["exact", "minor", "none"]
"""How far a version may be from the installed one: the same; the same major.minor; any."""
Change = Literal["moved", "dropped", "added"]


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that the environment is for."""

    platform: Platform
    python: str
    """Version of the interpreter, such as 3.12.4. The minor version is the source's."""
    glibc: str = "2.28"
    """Oldest glibc of the nodes: wheels tagged for a newer one are not chosen."""
    cuda: str = ""
    """Version of CUDA that the nodes' driver supports, for conda's `__cuda`; empty for none."""


@dataclass(frozen=True, slots=True)
class InstalledDistribution:
    """A pip distribution of the source environment."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    requires: tuple[str, ...] = ()
    """Requires-Dist as written, with markers."""
    requested: bool = False
    """Whether a user asked for it by name (REQUESTED), or no other distribution requires it."""
    source: str = ""
    """URL that it was installed from, without credentials: an archive, a `git+` URL with its commit, a
    `file://` folder; empty for an index."""
    editable: bool = False
    local: str = ""
    """Folder of the local project that it was installed from; empty if it is not local."""
    pure: bool = False
    """Whether its files are right on every platform: it was installed from a wheel with the tag `none-any`. If no index has
    a wheel of it (a Git package, one that is published as source alone), its installed files are taken (`Resolution.kept`)."""
    folder: str = ""
    """Absolute path of its metadata on this disk."""
    sha256: str = ""
    """Digest of the archive that it was installed from, as the installer recorded it; empty if it did not."""
    systems: tuple[str, ...] = ()
    """Operating systems that the classifiers of a pure one name, such as `MacOS :: MacOS X` and `OS Independent`."""


@dataclass(frozen=True, slots=True)
class InstalledCondaPackage:
    """A conda package of the source environment."""

    name: str
    version: str
    build: str
    channel: str
    """URL of its channel, without credentials and subdir."""
    subdir: str
    """`osx-arm64`, `win-64`, `noarch`."""
    requested: str = ""
    """Match spec that a user asked for; empty if it came as a dependency."""


@dataclass(frozen=True, slots=True)
class InstalledPackages:
    """What an environment has, read from its files on any system: nothing of it runs."""

    prefix: str
    python: str
    """Version of its interpreter, such as 3.12.4."""
    system: str
    """`linux`, `darwin` or `windows`."""
    architecture: str
    """OCI's name of its machine: `arm64`, `amd64`."""
    pypi: tuple[InstalledDistribution, ...]
    """Sorted by name."""
    conda: tuple[InstalledCondaPackage, ...] = ()
    """Sorted by name; empty for an environment without conda."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to download: a wheel or a conda package."""

    kind: Literal["wheel", "conda"]
    name: str
    version: str
    url: str
    """Without credentials."""
    sha256: str
    """Digest that the index, the channel, a lock or the installer's record states; empty without one, which is a
    finding."""
    size: int
    """Bytes; 0 if unknown."""
    index: str
    """URL of the index or channel that it comes from, without credentials; empty for a direct URL."""
    build: str = ""
    """conda's build string."""
    query: str = field(default="", repr=False, compare=False)
    """Query of the URL, such as a signature with a time limit: for the request alone, never shown or stored."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A package whose version for the target differs from the installed one."""

    name: str
    change: Change
    installed: str
    """Installed version; empty if it was added."""
    resolved: str
    """Version for the target; empty if it was dropped."""
    reason: str
    """One clause: `no wheel of 2.4.6 for linux/arm64`."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the target gets: a plan that can be printed before anything is downloaded."""

    target: Target
    artifacts: tuple[Artifact, ...]
    """Sorted by kind and name."""
    projects: tuple[str, ...] = ()
    """Folders of local projects, to be built as wheels."""
    kept: tuple[str, ...] = ()
    """Names of pure distributions whose installed files are taken, since no index has a wheel of them: `target_prefix`
    packs those files as a wheel."""
    moved: tuple[Moved, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """How an environment may differ on another platform."""

    match: Match | None = None
    """None: exact from Linux, minor from another system."""
    exact: tuple[str, ...] = ()
    """Names of packages that must keep their version, whatever `match` says."""
    glibc: str = "2.28"
    cuda: str = ""
    python_from: str = ""
    """Where the target's interpreter comes from: a folder, an image, or a reference of Lamella's; empty to look in
    the repository that is pushed to."""
