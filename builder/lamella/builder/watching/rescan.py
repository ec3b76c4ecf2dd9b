"""Short scans: the last one, with edited modules read again. Its files by real path also judge changes.

An edit of a module of local code changes the digest of one file, and nothing else of a scan. Any other change (a new
file, a package's records, an ELF file, a file that holds a prefix, a possible secret) needs a whole scan.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.errors import EnvironmentChanged
from lamella.builder.files.private_keys import is_private_key
from lamella.builder.files.read import read_all
from lamella.builder.files.secrets import REASONS, secret
from lamella.builder.watching.folders import is_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.environment import Environment, File, Package
    from lamella.builder.files.read import FileContent

_MODULES = (".py", ".pyi")
# Changed without a change of their own name in the file list, they change what else ships.
_RULES = frozenset({".gitignore", ".lamellaignore", "pyvenv.cfg", "RECORD", "METADATA", "direct_url.json", "history"})
_RULE_ENDINGS = (".pth", ".toml", ".egg-link", ".cfg")
_TWICE = (-1, -1)
"""Place of a file that ships at two paths: its edit needs a whole scan."""


@dataclass(frozen=True, slots=True)
class ScannedFiles:
    """A scanned environment, and its files by real path."""

    environment: Environment
    shipped: Mapping[str, tuple[int, int]]
    """Real path of each file to its package's and its own index, or `_TWICE`."""
    folders: frozenset[str]
    """Every folder with shipped files below it."""
    hidden: frozenset[str]
    """Real paths of files that are left out because of their content."""

    def is_relevant(self, path: str, *, modified: bool) -> bool:
        """Whether a change of `path` can change what ships. `modified`: not created, renamed or deleted."""
        if path in self.shipped or path in self.folders or path in self.hidden:
            return True
        name = os.path.basename(path)
        if name in _RULES or name.endswith(_RULE_ENDINGS):
            return True
        # A file that the scan saw and that does not ship, and one that came and went.
        return not modified and os.path.lexists(path)


def scanned_files(environment: Environment) -> ScannedFiles:
    """Index a scanned environment by real path."""
    real: dict[str, str] = {}
    shipped: dict[str, tuple[int, int]] = {}
    folders: set[str] = set()
    for number, package in enumerate(environment.packages):
        for at, file in enumerate(package.files):
            folder, _, name = file.source.rpartition("/")
            if folder not in real:
                real[folder] = os.path.realpath(folder)
                _add_with_parents(real[folder], folders)
            path = f"{real[folder]}/{name}"
            shipped[path] = _TWICE if path in shipped else (number, at)
    prefix = os.path.realpath(environment.prefix)
    hidden = {
        os.path.realpath(os.path.join(prefix, each.path)) for each in environment.left_out if each.reason in REASONS
    }
    return ScannedFiles(environment, shipped, frozenset(folders), frozenset(hidden))


def rescan(last: ScannedFiles, changed: Iterable[str]) -> ScannedFiles | None:
    """Return the scan after modules of local code were edited, or None if `changed` needs a whole scan.

    Raises `EnvironmentChanged` for a file that changes meanwhile, `CannotBuild` for an unreadable one.
    """
    found: dict[tuple[int, int], os.stat_result] = {}
    for path in changed:
        place = last.shipped.get(path)
        try:
            seen = os.lstat(path)
        except OSError as error:
            if place is None and path not in last.folders:
                continue  # an editor's own file, which came and went
            raise EnvironmentChanged(f"{path}: changed while it was read; try again") from error
        if place is None or place == _TWICE or not _is_plain(last.environment, place, seen):
            return None
        found[place] = seen
    contents = _contents(last.environment, found)
    files: dict[int, list[File]] = {}
    for (number, at), seen in found.items():
        file = last.environment.packages[number].files[at]
        content = contents[file.source]
        if content.holds or content.elf or _is_secret(file, seen.st_size):
            return None
        changed_file = file._replace(
            mode=0o755 if seen.st_mode & stat.S_IXUSR else 0o644,
            size=seen.st_size,
            digest=content.digest,
            mtime_ns=seen.st_mtime_ns,
            ctime_ns=seen.st_ctime_ns,
        )
        files.setdefault(number, list(last.environment.packages[number].files))[at] = changed_file
    packages = list(last.environment.packages)
    for number, its in files.items():
        packages[number] = replace(packages[number], files=tuple(its))
    return replace(last, environment=replace(last.environment, packages=tuple(packages)))


def _contents(environment: Environment, found: Mapping[tuple[int, int], os.stat_result]) -> dict[str, FileContent]:
    sources = {environment.packages[number].files[at].source: seen for (number, at), seen in found.items()}
    return dict(read_all(sources.items(), environment.prefixes))


def _is_plain(environment: Environment, place: tuple[int, int], seen: os.stat_result) -> bool:
    package: Package = environment.packages[place[0]]
    file = package.files[place[1]]
    return (
        package.origin == "local"
        and stat.S_ISREG(seen.st_mode)
        and file.target is None
        and not file.holds
        and file.path.endswith(_MODULES)
        # Wheels and egg-info are made of the project by others.
        and not is_in(os.path.realpath(file.source), os.path.realpath(environment.prefix))
    )


def _is_secret(file: File, size: int) -> bool:
    name = file.path.rpartition("/")[2]
    return secret(file.path, name, file.source) is not None or is_private_key(name, size, file.source)


def _add_with_parents(folder: str, found: set[str]) -> None:
    while folder not in found and folder != "/":
        found.add(folder)
        folder = os.path.dirname(folder)
