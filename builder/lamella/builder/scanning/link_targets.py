"""Decide which files outside the environment may ship in place of a link to them.

A link is text that anybody can write into a package or a repository, so where it leads proves nothing.
The target ships if it is the environment's own, the project's own, or a file that an installer recorded.
"""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.builder.files import elf
from lamella.builder.files.small_file import read_small
from lamella.builder.local.project_files import top_of
from lamella.builder.prefix.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.walk import FoundFile

Judgement = Literal["own", "recorded", "foreign"]

_KINDS = ("bin", "include", "lib", "lib32", "lib64", "libexec", "share")
_SOFTWARE = tuple(
    Place(folder, "")
    for folder in (
        *(f"{above}/{kind}" for above in ("/usr", "/usr/local") for kind in _KINDS),
        *("/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
        # Python's own configuration and certificates of authorities, to which distributions link their files.
        *("/etc/python3", "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"),
        *("/etc/ca-certificates/extracted", "/var/lib/ca-certificates"),
    )
)
"""Folders in which a system keeps software. Only files that every user may read count as such."""
# Installers write these last, so RECORD has no hash of them.
_UNHASHED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})


@dataclass(frozen=True)
class LinkTargets:
    """Facts of an environment that decide whether the target of a link ships. Not slotted: it caches the records."""

    environment: tuple[Place, ...]
    """Folders of the environment: its prefix, its base interpreter, its sites."""
    projects: tuple[Place, ...]
    """Folders of local code."""
    distributions: Sequence[Distribution]

    def judge(self, link: FoundFile, real: str) -> Judgement:
        """Decide whether `real`, to which `link` leads, ships in its place.

        Of a `recorded` target only the files with a recorded hash ship, if their bytes have it.
        """
        if any(place.holds(real) for place in self.environment) or _is_software(real):
            return "own"
        folder = os.path.realpath(os.path.dirname(link.source))
        if not any(place.holds(folder) for place in self.environment):
            if any(place.holds(folder) and place.holds(real) for place in self.projects):
                return "own"
            if Place(_top(folder), "").holds(real):
                return "own"
        if link.path in self._recorded or _is_metadata(link.path, real) or next(iter(self.below(link.path)), None):
            return "recorded"
        return "foreign"

    def hashes(self, path: str, real: str) -> frozenset[str] | None:
        """Digests of which the file `real` must have one to ship at `path`; None if it may have any."""
        return None if _is_metadata(path, real) else self._recorded.get(path, frozenset())

    def below(self, folder: str) -> Iterable[str]:
        """Recorded paths below `folder`, without byte code."""
        start = f"{folder}/"
        names = [path for path in self._recorded if path.startswith(start) and not path.endswith(".pyc")]
        if folder.endswith(".dist-info"):
            names += [start + name for name in sorted(_UNHASHED) if start + name not in self._recorded]
        return names

    @functools.cached_property
    def _recorded(self) -> Mapping[str, frozenset[str]]:
        """Path to every digest that a record has for it."""
        found: dict[str, set[str]] = {}
        for each in self.distributions:
            for path, digest in (each.files or {}).items():
                if digest:
                    found.setdefault(path, set()).add(digest)
        return {path: frozenset(digests) for path, digests in found.items()}


def _is_software(real: str) -> bool:
    """Whether `real` is a system's software, or a compiled program or library, and readable for every user."""
    try:
        seen = os.stat(real)
        if stat.S_ISDIR(seen.st_mode):
            return _is_systems(real)
        if not (stat.S_ISREG(seen.st_mode) and seen.st_mode & stat.S_IROTH):
            return False
        return _is_systems(real) or read_small(real, len(elf.MAGIC)) == elf.MAGIC
    except OSError:
        return False


def _is_systems(real: str) -> bool:
    return any(place.holds(real) for place in _SOFTWARE) or real.startswith("/etc/python3.")


def _is_metadata(path: str, real: str) -> bool:
    """Whether an installer's own file leads to the same file of the same distribution, as in a cache of packages."""
    folder, name = path.split("/")[-2:] if "/" in path else ("", path)
    return name in _UNHASHED and folder.endswith(".dist-info") and real.endswith(f"/{folder}/{name}")


@functools.lru_cache(1024)
def _top(folder: str) -> str:
    return os.path.realpath(top_of(folder))
